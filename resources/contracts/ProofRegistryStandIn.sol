// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title ProofRegistryStandIn: which proof hashes were used
/// @notice For tests. What the deployed marketplace asks of its ProofSystem: each hash counts once, for any host and job.
contract ProofRegistryStandIn {
    address public immutable marketplace;

    mapping(bytes32 proofHash => bool) public verifiedProofs;

    constructor() {
        marketplace = msg.sender;
    }

    /// @notice Mark a hash as used; false if it already was.
    function markProofUsed(bytes32 proofHash) external returns (bool) {
        require(msg.sender == marketplace, "Not authorized");
        if (verifiedProofs[proofHash]) return false;
        verifiedProofs[proofHash] = true;
        return true;
    }
}

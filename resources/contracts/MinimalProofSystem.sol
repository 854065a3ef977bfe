// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title MinimalProofSystem: `submitCheckpoint` and nothing else
/// @notice For tests of a settlement that can ask a contract nothing: no getters, no events, no createJob. It pays every
/// job of one host at one price out of the value it was deployed with, 90 % to the host and 10 % to the treasury.
/// @dev Tests read the tokens paid for a job from storage: slot `keccak256(abi.encode(jobId, 0))`.
contract MinimalProofSystem {
    mapping(uint256 jobId => uint256) private tokensPaid;
    mapping(bytes32 proofHash => bool) private proofUsed;
    address payable private immutable HOST;
    address payable private immutable TREASURY;
    uint256 private immutable PRICE_PER_TOKEN;

    constructor(address payable host, address payable treasury, uint256 pricePerToken) payable {
        HOST = host;
        TREASURY = treasury;
        PRICE_PER_TOKEN = pricePerToken;
    }

    /// @notice Claim `tokensGenerated` further tokens of any job; the proof is that of ProofSystem.
    function submitCheckpoint(uint256 jobId, uint256 tokensGenerated, bytes calldata proof) external {
        require(msg.sender == HOST, "Not the job's host");
        require(tokensGenerated != 0, "Zero tokens");
        require(tokensGenerated <= address(this).balance / PRICE_PER_TOKEN, "Deposit exceeded");
        require(proof.length == 97, "Proof must be 97 bytes");
        bytes32 proofHash = bytes32(proof[:32]);
        bytes32 digest = keccak256(
            abi.encodePacked(
                "\x19Ethereum Signed Message:\n32", keccak256(abi.encodePacked(proofHash, HOST, tokensGenerated))
            )
        );
        address signer = ecrecover(digest, uint8(proof[96]), bytes32(proof[32:64]), bytes32(proof[64:96]));
        require(signer == HOST, "Proof not signed by host");
        require(!proofUsed[proofHash], "Proof already used");

        proofUsed[proofHash] = true;
        tokensPaid[jobId] += tokensGenerated;
        uint256 amount = tokensGenerated * PRICE_PER_TOKEN;
        (bool toHost,) = HOST.call{value: amount - amount / 10}("");
        (bool toTreasury,) = TREASURY.call{value: amount / 10}("");
        require(toHost && toTreasury, "Not delivered");
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title BatchClaims: several claims of one host in one transaction
/// @notice A delegation target for EIP-7702. A host's account that delegates to it sends itself a list of calls; each is
/// made with the host's account as `msg.sender`, so that contracts which pay the caller need not know of it.
/// @dev It has no storage, no owner and no way to be upgraded, and obeys nobody but the account itself: what can be done
/// through it, its key could do anyway. A call that fails does not stop the others. The account stays able to receive
/// money. It is undone by delegating to the zero address.
contract BatchClaims {
    /// @param target the contract to call.
    /// @param gasLimit what the call may use. It is also what must be left when the call is made, so that a gas estimate
    /// cannot settle where the last claims just run out of gas and are reported as failed.
    /// @param data function and arguments.
    struct Call {
        address target;
        uint256 gasLimit;
        bytes data;
    }

    /// @dev How much of a failed call's answer is kept: enough for a reason, not for a bomb.
    uint256 private constant MAX_REASON_BYTES = 256;

    /// @notice One per call, in order. `reason` is what a failed call answered, cut at 256 bytes; empty after success.
    event CallResult(uint256 indexed index, address indexed target, bool success, bytes reason);

    /// @notice Make the calls, one after the other.
    /// @dev Reverts as a whole only if the sender is not the account itself, or if too little gas is left for a call.
    function executeBatch(Call[] calldata calls) external {
        require(msg.sender == address(this), "Only the account itself");
        for (uint256 index = 0; index < calls.length; ++index) {
            Call calldata item = calls[index];
            // All but one 64th of what is left can be passed on (EIP-150).
            require(gasleft() - gasleft() / 64 > item.gasLimit, "Not enough gas");
            (bool success, bytes memory reason) = _call(item.target, item.gasLimit, item.data);
            emit CallResult(index, item.target, success, reason);
        }
    }

    /// @notice Accepts payments, as an account without code would.
    receive() external payable {}

    /// @dev A plain Solidity call would copy the whole answer, however long.
    function _call(address target, uint256 gasLimit, bytes memory data)
        private
        returns (bool success, bytes memory reason)
    {
        uint256 size;
        assembly ("memory-safe") {
            success := call(gasLimit, target, 0, add(data, 0x20), mload(data), 0, 0)
            size := returndatasize()
        }
        if (success) return (true, "");
        if (size > MAX_REASON_BYTES) size = MAX_REASON_BYTES;
        reason = new bytes(size);
        assembly ("memory-safe") {
            returndatacopy(add(reason, 0x20), 0, size)
        }
    }
}

// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title HostEarningsStandIn: where settled earnings wait for their host
/// @notice For tests. Speaks the deployed HostEarnings' functions, events and revert texts, for the chain's own coin
/// (token address zero) only. The marketplace that deploys it is the only one that can credit.
contract HostEarningsStandIn {
    address public immutable marketplace;

    mapping(address host => mapping(address token => uint256)) private balances;

    event EarningsCredited(address indexed host, address indexed token, uint256 amount, uint256 newBalance);
    event EarningsWithdrawn(address indexed host, address indexed token, uint256 amount, uint256 remainingBalance);

    constructor() {
        marketplace = msg.sender;
    }

    /// @notice Credit a host with the value sent along.
    function creditEarnings(address host, address token) external payable {
        require(msg.sender == marketplace, "Not authorized to credit earnings");
        balances[host][token] += msg.value;
        emit EarningsCredited(host, token, msg.value, balances[host][token]);
    }

    function getBalance(address host, address token) external view returns (uint256) {
        return balances[host][token];
    }

    function getBalances(address host, address[] calldata tokens) external view returns (uint256[] memory amounts) {
        amounts = new uint256[](tokens.length);
        for (uint256 index = 0; index < tokens.length; ++index) {
            amounts[index] = balances[host][tokens[index]];
        }
    }

    /// @notice Send a part of the sender's balance to the sender. The amount comes first.
    function withdraw(uint256 amount, address token) external {
        require(amount > 0, "Amount must be positive");
        require(balances[msg.sender][token] >= amount, "Insufficient earnings");
        _send(amount, token);
    }

    /// @notice Send the sender's whole balance to the sender.
    function withdrawAll(address token) external {
        uint256 amount = balances[msg.sender][token];
        require(amount > 0, "No earnings to withdraw");
        _send(amount, token);
    }

    /// @notice Send the sender's whole balance of several tokens; those with none are passed over.
    function withdrawMultiple(address[] calldata tokens) external {
        for (uint256 index = 0; index < tokens.length; ++index) {
            uint256 amount = balances[msg.sender][tokens[index]];
            if (amount > 0) _send(amount, tokens[index]);
        }
    }

    function _send(uint256 amount, address token) private {
        balances[msg.sender][token] -= amount;
        emit EarningsWithdrawn(msg.sender, token, amount, balances[msg.sender][token]);
        (bool delivered,) = msg.sender.call{value: amount}("");
        require(delivered, "ETH transfer failed");
    }
}

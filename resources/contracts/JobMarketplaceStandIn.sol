// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

import {HostEarningsStandIn} from "./HostEarningsStandIn.sol";
import {ProofRegistryStandIn} from "./ProofRegistryStandIn.sol";

/// @title JobMarketplaceStandIn: the rules of Fabstir's deployed JobMarketplace, for tests
/// @notice Functions, events and revert texts are those of the contract on Base Sepolia as far as they are known; where
/// the deployed text is unknown, the older published source's is used. Where two readings of a rule exist, the stricter
/// one holds here: the dispute window runs from the last proof, and a proof after the time-out window is refused.
/// @dev Left out: ERC-20 payment, staking and registration of hosts, delegates, upgrades.
contract JobMarketplaceStandIn {
    /// @dev The order is that of the getter's 18 results.
    struct SessionJob {
        uint256 id;
        address depositor;
        address host;
        address paymentToken;
        uint256 deposit;
        uint256 pricePerToken;
        uint256 tokensUsed;
        uint256 maxDuration;
        uint256 startTime;
        uint256 lastProofTime;
        uint256 proofInterval;
        uint256 proofTimeoutWindow;
        SessionStatus status;
        uint256 withdrawnByHost;
        uint256 refundedToUser;
        string conversationCID;
        bytes32 lastProofHash;
        string lastProofCID;
    }

    struct ProofSubmission {
        bytes32 proofHash;
        uint256 tokensClaimed;
        uint256 timestamp;
        bool verified;
        string deltaCID;
    }

    enum SessionStatus {
        Active,
        Completed,
        TimedOut
    }

    uint256 public constant PRICE_PRECISION = 1000;
    uint256 public constant MIN_PROVEN_TOKENS = 100;
    uint256 public constant MIN_DEPOSIT = 0.0001 ether;
    uint256 public constant MIN_PROOF_TIMEOUT = 60;
    uint256 public constant MAX_PROOF_TIMEOUT = 3600;
    uint256 public constant DEFAULT_PROOF_TIMEOUT = 300;

    address public immutable owner;
    HostEarningsStandIn public immutable hostEarnings;
    ProofRegistryStandIn public immutable proofSystem;
    uint256 public immutable disputeWindow;
    uint256 public immutable tokensPerSecond;
    uint256 public immutable feeBasisPoints = 1000;
    uint256 public immutable minTokensFee = 1000;

    bool public paused;
    uint256 public nextJobId = 1;
    uint256 public accumulatedTreasuryNative;

    mapping(uint256 jobId => SessionJob) public sessionJobs;
    mapping(uint256 jobId => bytes32) public sessionModel;
    mapping(address host => uint256[]) public hostSessions;
    mapping(address depositor => uint256) public userDepositsNative;
    mapping(uint256 jobId => ProofSubmission[]) private proofs;

    error EnforcedPause();

    event SessionJobCreated(uint256 indexed jobId, address indexed depositor, address indexed host, uint256 deposit);
    event SessionJobCreatedForModel(
        uint256 indexed jobId, address indexed depositor, address indexed host, bytes32 modelId, uint256 deposit
    );
    event ProofSubmitted(
        uint256 indexed jobId,
        address indexed host,
        uint256 tokensClaimed,
        bytes32 proofHash,
        string proofCID,
        string deltaCID
    );
    event SessionCompleted(uint256 indexed jobId, uint256 totalTokensUsed, uint256 hostEarnings, uint256 userRefund);
    event SessionCompletedBy(
        uint256 indexed jobId,
        address indexed completedBy,
        uint256 tokensUsed,
        uint256 paymentAmount,
        uint256 refundAmount
    );
    event SessionTimedOut(uint256 indexed jobId, uint256 hostEarnings, uint256 userRefund);
    event RefundCreditedToDeposit(
        uint256 indexed jobId, address indexed depositor, uint256 amount, address indexed token
    );

    /// @param disputeWindow_ seconds that a host waits after his last proof before he may complete; 30 where deployed.
    /// @param tokensPerSecond_ the most that may be claimed per second of block time; 2000 where deployed.
    constructor(uint256 disputeWindow_, uint256 tokensPerSecond_) {
        owner = msg.sender;
        disputeWindow = disputeWindow_;
        tokensPerSecond = tokensPerSecond_;
        hostEarnings = new HostEarningsStandIn();
        proofSystem = new ProofRegistryStandIn();
    }

    /// @notice Open a session; the value sent along is its deposit.
    /// @param pricePerToken in thousandths of a wei.
    /// @param proofInterval the least number of tokens of the first proof.
    /// @param proofTimeoutWindow seconds without a proof after which anyone may close the session.
    function createSessionJobForModel(
        address host,
        bytes32 modelId,
        uint256 pricePerToken,
        uint256 maxDuration,
        uint256 proofInterval,
        uint256 proofTimeoutWindow
    ) external payable returns (uint256 jobId) {
        require(host != address(0), "Invalid host");
        require(pricePerToken > 0, "Invalid price");
        require(maxDuration > 0, "Invalid duration");
        require(proofInterval >= MIN_PROVEN_TOKENS, "Proof interval too small");
        require(proofTimeoutWindow >= MIN_PROOF_TIMEOUT && proofTimeoutWindow <= MAX_PROOF_TIMEOUT, "Invalid timeout");
        require(msg.value >= MIN_DEPOSIT, "Insufficient deposit");
        require(msg.value * PRICE_PRECISION / pricePerToken >= proofInterval, "Deposit too small for proof interval");

        jobId = nextJobId++;
        SessionJob storage job = sessionJobs[jobId];
        job.id = jobId;
        job.depositor = msg.sender;
        job.host = host;
        job.deposit = msg.value;
        job.pricePerToken = pricePerToken;
        job.maxDuration = maxDuration;
        job.startTime = block.timestamp;
        job.lastProofTime = block.timestamp;
        job.proofInterval = proofInterval;
        job.proofTimeoutWindow = proofTimeoutWindow;
        sessionModel[jobId] = modelId;
        hostSessions[host].push(jobId);
        emit SessionJobCreated(jobId, msg.sender, host, msg.value);
        emit SessionJobCreatedForModel(jobId, msg.sender, host, modelId, msg.value);
    }

    /// @notice Claim `tokensClaimed` further tokens. Nothing is paid yet; the chain checks no content.
    function submitProofOfWork(
        uint256 jobId,
        uint256 tokensClaimed,
        bytes32 proofHash,
        string calldata proofCID,
        string calldata deltaCID
    ) external {
        if (paused) revert EnforcedPause();
        SessionJob storage job = sessionJobs[jobId];
        _checkClaim(job, tokensClaimed);
        require(proofSystem.markProofUsed(proofHash), "Invalid proof signature");

        job.tokensUsed += tokensClaimed;
        job.lastProofTime = block.timestamp;
        job.lastProofHash = proofHash;
        job.lastProofCID = proofCID;
        proofs[jobId].push(ProofSubmission(proofHash, tokensClaimed, block.timestamp, true, deltaCID));
        emit ProofSubmitted(jobId, msg.sender, tokensClaimed, proofHash, proofCID, deltaCID);
    }

    /// @notice End a session and settle what was proven: the depositor at any time, the host after the dispute window.
    function completeSessionJob(uint256 jobId, string calldata conversationCID) external {
        SessionJob storage job = sessionJobs[jobId];
        require(job.host != address(0) && job.status == SessionStatus.Active, "Session not active");
        require(msg.sender == job.depositor || msg.sender == job.host, "Only host/depositor");
        if (msg.sender == job.host) {
            require(block.timestamp >= job.lastProofTime + disputeWindow, "Dispute wait");
        }
        job.status = SessionStatus.Completed;
        job.conversationCID = conversationCID;
        bool isEarly = msg.sender == job.depositor && job.tokensUsed == 0;
        (uint256 payment, uint256 refund) = _settle(job, isEarly);
        emit SessionCompleted(jobId, job.tokensUsed, payment, refund);
        emit SessionCompletedBy(jobId, msg.sender, job.tokensUsed, payment, refund);
    }

    /// @notice Close a session that is over its duration, or without a proof for longer than its window. For anyone.
    function triggerSessionTimeout(uint256 jobId) external {
        SessionJob storage job = sessionJobs[jobId];
        require(job.host != address(0) && job.status == SessionStatus.Active, "Session not active");
        require(
            block.timestamp > job.startTime + job.maxDuration
                || block.timestamp > job.lastProofTime + job.proofTimeoutWindow,
            "Session not timed out"
        );
        job.status = SessionStatus.TimedOut;
        (uint256 payment, uint256 refund) = _settle(job, false);
        emit SessionTimedOut(jobId, payment, refund);
    }

    /// @notice A proof by its place; reverts past the last one.
    function getProofSubmission(uint256 sessionId, uint256 proofIndex)
        external
        view
        returns (
            bytes32 proofHash,
            uint256 tokensClaimed,
            uint256 timestamp,
            bool verified,
            string memory deltaCID
        )
    {
        require(proofIndex < proofs[sessionId].length, "Bad index");
        ProofSubmission storage proof = proofs[sessionId][proofIndex];
        return (proof.proofHash, proof.tokensClaimed, proof.timestamp, proof.verified, proof.deltaCID);
    }

    /// @notice Send what was refunded to the sender.
    function withdrawNative(uint256 amount) external {
        require(amount > 0 && userDepositsNative[msg.sender] >= amount, "Insufficient deposit");
        userDepositsNative[msg.sender] -= amount;
        (bool delivered,) = msg.sender.call{value: amount}("");
        require(delivered, "ETH refund failed");
    }

    /// @notice Only the chain's own coin is accepted here.
    function acceptedTokens(address) external pure returns (bool) {
        return false;
    }

    /// @notice Stop or resume proofs. Completion goes on.
    function setPaused(bool value) external {
        require(msg.sender == owner, "Not authorized");
        paused = value;
    }

    function _checkClaim(SessionJob storage job, uint256 tokensClaimed) private view {
        // A session that does not exist reads as active, with host zero: nobody is its host.
        require(job.status == SessionStatus.Active, "Session not active");
        require(msg.sender == job.host, "Not host");
        require(tokensClaimed >= MIN_PROVEN_TOKENS, "Must claim minimum tokens");
        uint256 elapsed = block.timestamp - job.lastProofTime;
        require(elapsed <= job.proofTimeoutWindow, "Proof timeout");
        require(tokensClaimed <= elapsed * tokensPerSecond, "Too many");
        require(job.tokensUsed + tokensClaimed <= job.deposit * PRICE_PRECISION / job.pricePerToken, "Exceeds deposit");
        require(job.tokensUsed > 0 || tokensClaimed >= job.proofInterval, "Low first");
    }

    /// @dev Credits host, treasury and depositor; returns what the host gets and what the depositor gets back. An early
    /// end without a proof costs the depositor the price of `minTokensFee` tokens, all of it for the host.
    function _settle(SessionJob storage job, bool isEarly) private returns (uint256 hostAmount, uint256 refund) {
        uint256 payment;
        if (isEarly) {
            payment = minTokensFee * job.pricePerToken / PRICE_PRECISION;
            if (payment > job.deposit) payment = job.deposit;
            hostAmount = payment;
        } else {
            payment = job.tokensUsed * job.pricePerToken / PRICE_PRECISION;
            uint256 fee = payment * feeBasisPoints / 10_000;
            accumulatedTreasuryNative += fee;
            hostAmount = payment - fee;
        }
        refund = job.deposit - payment;
        job.withdrawnByHost = hostAmount;
        job.refundedToUser = refund;
        if (hostAmount > 0) hostEarnings.creditEarnings{value: hostAmount}(job.host, address(0));
        if (refund > 0) {
            userDepositsNative[job.depositor] += refund;
            emit RefundCreditedToDeposit(job.id, job.depositor, refund, address(0));
        }
    }
}

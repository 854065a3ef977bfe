// SPDX-License-Identifier: MIT
pragma solidity ^0.8.28;

/// @title ProofSystem: checkpoints of generated tokens, paid as they are claimed
/// @notice The reference contract of fabstir-desktop. A client opens a job with a deposit in the chain's own coin; the
/// job's host claims generated tokens in checkpoints and is paid at once: 90 % to the host, 10 % to the treasury.
/// @dev `tokensGenerated` is always the increment since the last checkpoint, never a running total.
///
/// Refusals are strings, not custom errors: a gateway that drops the revert data still passes the message on. They are
/// checked in this order, so that a call without a valid proof tells whether the job itself would pay: "No such job",
/// "Not the job's host", "Job not open", "Zero tokens", "Deposit exceeded", "Proof must be 97 bytes",
/// "Proof not signed by host", "Proof already used".
///
/// What it does not do: it cannot know how many tokens were really generated, and a client may end a job before its
/// host has claimed the last of them. A host bounds that loss by claiming often.
contract ProofSystem {
    struct Job {
        address client;
        address host;
        uint256 pricePerToken;
        uint256 deposit;
        uint256 tokensPaid;
        bool open;
    }

    /// @notice One tenth of every payment goes to the treasury, rounded down; the host gets the rest.
    uint256 public constant TREASURY_SHARE = 10;

    /// @dev Gas for a payee that is a contract: enough for a wallet's `receive`, too little to make a claim expensive.
    uint256 private constant PAYMENT_GAS = 30_000;

    /// @dev What must be left before a payee with code is paid: his gas, the price of the call, and the 64th that stays.
    uint256 private constant GAS_TO_START_PAYMENT = 50_000;

    /// @dev Half of the curve's order. A signature with a larger `s` is the mirror image of a valid one.
    uint256 private constant HALF_CURVE_ORDER = 0x7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF5D576E7357A4501DDFE92F46681B20A0;

    /// @notice Who receives the treasury's share.
    address public immutable treasury;

    /// @notice How many jobs were ever created; also the id of the newest. The first job has id 1.
    uint256 public jobCount;

    /// @notice A job by its id. `deposit` is what the client paid in, `tokensPaid` what was claimed of it so far.
    mapping(uint256 jobId => Job) public jobs;

    /// @notice Whether a host has used a proof hash. Kept per host: nobody can burn another host's proof by copying it
    /// from the public pool into a job of his own.
    mapping(address host => mapping(bytes32 proofHash => bool)) public proofUsed;

    /// @notice What could not be delivered, by payee; see `withdraw`.
    mapping(address payee => uint256) public owed;

    bool private transient entered;

    event JobCreated(
        uint256 indexed jobId, address indexed client, address indexed host, uint256 pricePerToken, uint256 deposit
    );
    event CheckpointSubmitted(uint256 indexed jobId, address indexed host, uint256 tokensGenerated, bytes32 proofHash);
    event PaymentDistributed(
        uint256 indexed jobId, address indexed host, uint256 hostAmount, address treasury, uint256 treasuryAmount
    );
    /// @notice The job takes no further checkpoint; `refund` went back to the client.
    event JobEnded(uint256 indexed jobId, address indexed client, uint256 tokensPaid, uint256 refund);
    /// @notice `payee` did not accept a payment. The amount waits for `withdraw`; nothing else is held up by it.
    event PaymentHeld(address indexed payee, uint256 amount);

    modifier nonReentrant() {
        require(!entered, "Reentrant call");
        entered = true;
        _;
        entered = false;
    }

    /// @param treasury_ receives one tenth of every payment; never the zero address.
    constructor(address treasury_) {
        require(treasury_ != address(0), "Zero treasury");
        treasury = treasury_;
    }

    /// @notice Open a job for `host`; the value sent along is its deposit.
    /// @dev A deposit below one token's price is allowed; such a job simply covers nothing.
    /// @param host the only account that can claim from the deposit.
    /// @param pricePerToken in wei.
    /// @return jobId of the new job.
    function createJob(address host, uint256 pricePerToken) external payable returns (uint256 jobId) {
        require(host != address(0), "Zero host");
        require(pricePerToken != 0, "Zero price");
        jobId = ++jobCount;
        jobs[jobId] = Job(msg.sender, host, pricePerToken, msg.value, 0, true);
        emit JobCreated(jobId, msg.sender, host, pricePerToken, msg.value);
    }

    /// @notice Claim `tokensGenerated` further tokens of a job. Pays host and treasury in the same transaction.
    /// @param jobId of an open job whose host is the sender.
    /// @param tokensGenerated since the last checkpoint of this job.
    /// @param proof 97 bytes: `proofHash (32) | r (32) | s (32) | v (1)`, where the host has signed, as EIP-191
    /// personal message, `keccak256(abi.encodePacked(proofHash, host, tokensGenerated))`.
    function submitCheckpoint(uint256 jobId, uint256 tokensGenerated, bytes calldata proof) external nonReentrant {
        Job storage job = jobs[jobId];
        require(job.host != address(0), "No such job");
        require(msg.sender == job.host, "Not the job's host");
        require(job.open, "Job not open");
        require(tokensGenerated != 0, "Zero tokens");
        require(tokensGenerated <= _covered(job), "Deposit exceeded");
        bytes32 proofHash = _checkedProof(proof, msg.sender, tokensGenerated);
        require(!proofUsed[msg.sender][proofHash], "Proof already used");

        proofUsed[msg.sender][proofHash] = true;
        job.tokensPaid += tokensGenerated;
        uint256 amount = tokensGenerated * job.pricePerToken;
        uint256 treasuryAmount = (amount * TREASURY_SHARE) / 100;
        uint256 hostAmount = amount - treasuryAmount;
        emit CheckpointSubmitted(jobId, msg.sender, tokensGenerated, proofHash);
        emit PaymentDistributed(jobId, msg.sender, hostAmount, treasury, treasuryAmount);

        _pay(msg.sender, hostAmount);
        _pay(treasury, treasuryAmount);
    }

    /// @notice Close a job and send what was not claimed back to its client. Callable by its client and its host.
    function endJob(uint256 jobId) external nonReentrant {
        Job storage job = jobs[jobId];
        require(job.host != address(0), "No such job");
        require(msg.sender == job.client || msg.sender == job.host, "Not the job's client or host");
        require(job.open, "Job not open");

        job.open = false;
        uint256 refund = job.deposit - job.tokensPaid * job.pricePerToken;
        emit JobEnded(jobId, job.client, job.tokensPaid, refund);
        _pay(job.client, refund);
    }

    /// @notice Send what is owed to the sender to an address that can receive it.
    function withdraw(address payable to) external nonReentrant {
        uint256 amount = owed[msg.sender];
        require(amount != 0, "Nothing owed");
        owed[msg.sender] = 0;
        (bool delivered,) = to.call{value: amount}("");
        require(delivered, "Not delivered");
    }

    /// @notice How many further tokens the deposit of a job covers: 0 for a job that is closed or does not exist.
    function tokensCovered(uint256 jobId) external view returns (uint256) {
        Job storage job = jobs[jobId];
        return job.open ? _covered(job) : 0;
    }

    function _covered(Job storage job) private view returns (uint256) {
        return job.deposit / job.pricePerToken - job.tokensPaid;
    }

    /// @dev Returns the proof hash, or refuses a proof that is malformed or not the host's.
    function _checkedProof(bytes calldata proof, address host, uint256 tokensGenerated)
        private
        pure
        returns (bytes32 proofHash)
    {
        require(proof.length == 97, "Proof must be 97 bytes");
        proofHash = bytes32(proof[:32]);
        bytes32 digest = keccak256(
            abi.encodePacked(
                "\x19Ethereum Signed Message:\n32", keccak256(abi.encodePacked(proofHash, host, tokensGenerated))
            )
        );
        bytes32 s = bytes32(proof[64:96]);
        bool canonical = uint256(s) <= HALF_CURVE_ORDER;
        address signer = ecrecover(digest, uint8(proof[96]), bytes32(proof[32:64]), s);
        // ecrecover answers zero to anything that is no signature; a host is never zero.
        require(canonical && signer == host, "Proof not signed by host");
    }

    /// @dev Pays, or keeps the amount for `withdraw` where the payee does not accept it: a treasury or client that
    /// cannot receive must not keep a host from his money. The answer's bytes are not copied, so that a payee cannot
    /// make the caller pay for a long one. A payee with code is not tried with less gas than it is promised; otherwise
    /// a gas estimate would settle at the limit where the payment just fails.
    function _pay(address payee, uint256 amount) private {
        if (amount == 0) return;
        require(payee.code.length == 0 || gasleft() > GAS_TO_START_PAYMENT, "Not enough gas to pay");
        bool delivered;
        assembly ("memory-safe") {
            delivered := call(PAYMENT_GAS, payee, amount, 0, 0, 0, 0)
        }
        if (delivered) return;
        owed[payee] += amount;
        emit PaymentHeld(payee, amount);
    }
}

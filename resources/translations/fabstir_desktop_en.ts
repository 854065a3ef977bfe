<?xml version="1.0" encoding="utf-8"?>
<!DOCTYPE TS>
<TS version="2.1" language="en" sourcelanguage="en">
<context>
    <name>DashboardPage</name>
    <message numerus="yes">
        <source>%n problem(s)</source>
        <translation>
            <numerusform>%n problem</numerusform>
            <numerusform>%n problems</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Leaving</name>
    <message numerus="yes">
        <source>%n request(s) running</source>
        <translation>
            <numerusform>%n request running</numerusform>
            <numerusform>%n requests running</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <source>%n claim(s) on the way</source>
        <translation>
            <numerusform>%n claim on the way</numerusform>
            <numerusform>%n claims on the way</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>TransactionsPage</name>
    <message numerus="yes">
        <source>%n endpoint(s) answered</source>
        <translation>
            <numerusform>%n endpoint answered</numerusform>
            <numerusform>%n endpoints answered</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>Tray</name>
    <message numerus="yes">
        <source>Keeping the computer awake: %n request(s) running</source>
        <translation>
            <numerusform>Keeping the computer awake: %n request running</numerusform>
            <numerusform>Keeping the computer awake: %n requests running</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <source>%n request(s) running</source>
        <translation>
            <numerusform>%n request running</numerusform>
            <numerusform>%n requests running</numerusform>
        </translation>
    </message>
</context>
<context>
    <name>sentences</name>
    <message>
        <source>(no node has taken it yet; it is sent again)</source>
        <translation>(no node has taken it yet; it is sent again)</translation>
    </message>
    <message>
        <source>(unverified: one RPC)</source>
        <translation>(unverified: one RPC)</translation>
    </message>
    <message>
        <source>A proxy is not named</source>
        <translation>A proxy is not named</translation>
    </message>
    <message>
        <source>A second client asked for job {job_id}, which another one uses. It was refused</source>
        <translation>A second client asked for job {job_id}, which another one uses. It was refused</translation>
    </message>
    <message>
        <source>A session without a prompt for this long is ended</source>
        <translation>A session without a prompt for this long is ended</translation>
    </message>
    <message>
        <source>Add its address to TRUSTED_PROXIES if it is yours</source>
        <translation>Add its address to TRUSTED_PROXIES if it is yours</translation>
    </message>
    <message>
        <source>Add key</source>
        <translation>Add key</translation>
    </message>
    <message>
        <source>Address of an OpenAI-compatible server (vLLM, SGLang, llama-server) to use instead of a local model</source>
        <translation>Address of an OpenAI-compatible server (vLLM, SGLang, llama-server) to use instead of a local model</translation>
    </message>
    <message>
        <source>Address of the JobMarketplace contract</source>
        <translation>Address of the JobMarketplace contract</translation>
    </message>
    <message>
        <source>Address of the ProofSystem contract</source>
        <translation>Address of the ProofSystem contract</translation>
    </message>
    <message>
        <source>Address the server listens on; 127.0.0.1 reaches this machine only</source>
        <translation>Address the server listens on; 127.0.0.1 reaches this machine only</translation>
    </message>
    <message>
        <source>Address under which clients reach this host, such as wss://host.example.org; its name is accepted in requests</source>
        <translation>Address under which clients reach this host, such as wss://host.example.org; its name is accepted in requests</translation>
    </message>
    <message>
        <source>Addresses of reverse proxies whose X-Forwarded-For is believed, comma separated</source>
        <translation>Addresses of reverse proxies whose X-Forwarded-For is believed, comma separated</translation>
    </message>
    <message>
        <source>An RPC is silent</source>
        <translation>An RPC is silent</translation>
    </message>
    <message>
        <source>An unknown error; the log has the details</source>
        <translation>An unknown error; the log has the details</translation>
    </message>
    <message>
        <source>An update is ready</source>
        <translation>An update is ready</translation>
    </message>
    <message>
        <source>Another copy uses this data</source>
        <translation>Another copy uses this data</translation>
    </message>
    <message>
        <source>Another key than expected</source>
        <translation>Another key than expected</translation>
    </message>
    <message>
        <source>Another keyring than expected</source>
        <translation>Another keyring than expected</translation>
    </message>
    <message>
        <source>Another program is sending from {sender} (nonce {nonce} was used)</source>
        <translation>Another program is sending from {sender} (nonce {nonce} was used)</translation>
    </message>
    <message>
        <source>Another program uses the key</source>
        <translation>Another program uses the key</translation>
    </message>
    <message>
        <source>Another transaction has claimed them, and they are not claimed twice</source>
        <translation>Another transaction has claimed them, and they are not claimed twice</translation>
    </message>
    <message>
        <source>Anyone who reaches port {api_port} from {where} can connect</source>
        <translation>Anyone who reaches port {api_port} from {where} can connect</translation>
    </message>
    <message>
        <source>Anyone who reaches {address} can connect, through a reverse proxy</source>
        <translation>Anyone who reaches {address} can connect, through a reverse proxy</translation>
    </message>
    <message>
        <source>Back after {seconds} away ({since} to {until}); the computer slept or stood still</source>
        <translation>Back after {seconds} away ({since} to {until}); the computer slept or stood still</translation>
    </message>
    <message>
        <source>Blocks on top of a claim's block, itself counted, until it counts as proven</source>
        <translation>Blocks on top of a claim's block, itself counted, until it counts as proven</translation>
    </message>
    <message>
        <source>CPU threads of the model; empty: the machine's cores</source>
        <translation>CPU threads of the model; empty: the machine's cores</translation>
    </message>
    <message>
        <source>Cap on the fee per gas, in gwei; dearer claims wait</source>
        <translation>Cap on the fee per gas, in gwei; dearer claims wait</translation>
    </message>
    <message>
        <source>Certificate file (PEM) for wss; renewed files are read again</source>
        <translation>Certificate file (PEM) for wss; renewed files are read again</translation>
    </message>
    <message>
        <source>Chain data is old</source>
        <translation>Chain data is old</translation>
    </message>
    <message>
        <source>Chain data is {span} old</source>
        <translation>Chain data is {span} old</translation>
    </message>
    <message>
        <source>Change RPC</source>
        <translation>Change RPC</translation>
    </message>
    <message>
        <source>Change address</source>
        <translation>Change address</translation>
    </message>
    <message>
        <source>Change port</source>
        <translation>Change port</translation>
    </message>
    <message>
        <source>Change the RPC, or the chain id, in Settings</source>
        <translation>Change the RPC, or the chain id, in Settings</translation>
    </message>
    <message>
        <source>Check address</source>
        <translation>Check address</translation>
    </message>
    <message>
        <source>Check that your key is the job's host</source>
        <translation>Check that your key is the job's host</translation>
    </message>
    <message>
        <source>Check the contract address in Settings</source>
        <translation>Check the contract address in Settings</translation>
    </message>
    <message>
        <source>Check the network and the RPC setting</source>
        <translation>Check the network and the RPC setting</translation>
    </message>
    <message>
        <source>Check the router's port forwarding, the proxy and PUBLIC_URL</source>
        <translation>Check the router's port forwarding, the proxy and PUBLIC_URL</translation>
    </message>
    <message>
        <source>Choose a place</source>
        <translation>Choose a place</translation>
    </message>
    <message>
        <source>Choose a smaller model, or a smaller context</source>
        <translation>Choose a smaller model, or a smaller context</translation>
    </message>
    <message>
        <source>Choose model</source>
        <translation>Choose model</translation>
    </message>
    <message>
        <source>Claim every {enough} tokens: then gas costs at most half of what is earned</source>
        <translation>Claim every {enough} tokens: then gas costs at most half of what is earned</translation>
    </message>
    <message>
        <source>Claim less often</source>
        <translation>Claim less often</translation>
    </message>
    <message>
        <source>Claim now</source>
        <translation>Claim now</translation>
    </message>
    <message>
        <source>Claims are due soon</source>
        <translation>Claims are due soon</translation>
    </message>
    <message>
        <source>Claims are not batched. {sentence}</source>
        <translation>Claims are not batched. {sentence}</translation>
    </message>
    <message>
        <source>Claims are refused</source>
        <translation>Claims are refused</translation>
    </message>
    <message>
        <source>Claims cannot be batched</source>
        <translation>Claims cannot be batched</translation>
    </message>
    <message>
        <source>Claims cost more than they earn</source>
        <translation>Claims cost more than they earn</translation>
    </message>
    <message>
        <source>Claims that earn less than their gas: make them all the same, or hold them back until they have grown</source>
        <translation>Claims that earn less than their gas: make them all the same, or hold them back until they have grown</translation>
    </message>
    <message>
        <source>Claims wait long</source>
        <translation>Claims wait long</translation>
    </message>
    <message>
        <source>Clients are sent elsewhere</source>
        <translation>Clients are sent elsewhere</translation>
    </message>
    <message>
        <source>Clients fight for a job</source>
        <translation>Clients fight for a job</translation>
    </message>
    <message>
        <source>Compare</source>
        <translation>Compare</translation>
    </message>
    <message>
        <source>Connected to {chain_name} through {active_name}</source>
        <translation>Connected to {chain_name} through {active_name}</translation>
    </message>
    <message>
        <source>Connecting to {chain_id}</source>
        <translation>Connecting to {chain_id}</translation>
    </message>
    <message>
        <source>Connections at the same time</source>
        <translation>Connections at the same time</translation>
    </message>
    <message>
        <source>Customers are sent to {url}, you serve on {public_url}</source>
        <translation>Customers are sent to {url}, you serve on {public_url}</translation>
    </message>
    <message>
        <source>Deposits are nearly used up</source>
        <translation>Deposits are nearly used up</translation>
    </message>
    <message>
        <source>Enter it again</source>
        <translation>Enter it again</translation>
    </message>
    <message>
        <source>Every web page may connect</source>
        <translation>Every web page may connect</translation>
    </message>
    <message>
        <source>Fabstir host cannot start</source>
        <translation>Fabstir host cannot start</translation>
    </message>
    <message>
        <source>Finishing</source>
        <translation>Finishing</translation>
    </message>
    <message>
        <source>Finishing {job}, then pausing</source>
        <translation>Finishing {job}, then pausing</translation>
    </message>
    <message>
        <source>Finishing {request}, then stopping</source>
        <translation>Finishing {request}, then stopping</translation>
    </message>
    <message>
        <source>Free disk space, or mend the permissions of the data folder</source>
        <translation>Free disk space, or mend the permissions of the data folder</translation>
    </message>
    <message>
        <source>Free the port or choose another</source>
        <translation>Free the port or choose another</translation>
    </message>
    <message>
        <source>Fund</source>
        <translation>Fund</translation>
    </message>
    <message>
        <source>Gas costs {price} gwei, your cap is {cap} gwei. Claims wait until it falls</source>
        <translation>Gas costs {price} gwei, your cap is {cap} gwei. Claims wait until it falls</translation>
    </message>
    <message>
        <source>Gas is dearer than the cap</source>
        <translation>Gas is dearer than the cap</translation>
    </message>
    <message>
        <source>Gas money is low</source>
        <translation>Gas money is low</translation>
    </message>
    <message>
        <source>Get the file again, or choose another model</source>
        <translation>Get the file again, or choose another model</translation>
    </message>
    <message>
        <source>Hours of the day to serve in, such as 22:00-07:00, comma separated; empty: always. The host pauses outside</source>
        <translation>Hours of the day to serve in, such as 22:00-07:00, comma separated; empty: always. The host pauses outside</translation>
    </message>
    <message>
        <source>How deep a payment's block must be until it counts as earned (included, safe, final); others are shown as pending</source>
        <translation>How deep a payment's block must be until it counts as earned (included, safe, final); others are shown as pending</translation>
    </message>
    <message>
        <source>How much is logged</source>
        <translation>How much is logged</translation>
    </message>
    <message>
        <source>How often receipts and events are looked for</source>
        <translation>How often receipts and events are looked for</translation>
    </message>
    <message>
        <source>Job {job_id} cannot be claimed: {plain}. Its tokens stay in the ledger</source>
        <translation>Job {job_id} cannot be claimed: {plain}. Its tokens stay in the ledger</translation>
    </message>
    <message>
        <source>Job {job_id}: at {tokens} tokens a claim earns less than its gas</source>
        <translation>Job {job_id}: at {tokens} tokens a claim earns less than its gas</translation>
    </message>
    <message>
        <source>Job {job_id}: its deposit covers {covers}</source>
        <translation>Job {job_id}: its deposit covers {covers}</translation>
    </message>
    <message>
        <source>Job {job_id}: {claimable} tokens must be claimed before {clock}, or they cannot be paid</source>
        <translation>Job {job_id}: {claimable} tokens must be claimed before {clock}, or they cannot be paid</translation>
    </message>
    <message>
        <source>Job {job_id}: {note}. The difference was claimed elsewhere and is not claimed again</source>
        <translation>Job {job_id}: {note}. The difference was claimed elsewhere and is not claimed again</translation>
    </message>
    <message>
        <source>Job {job_id}: {tokens} tokens were claimed elsewhere, by transaction 0x{hex}, which is not in this data folder ({which} counted here). They are not claimed again</source>
        <translation>Job {job_id}: {tokens} tokens were claimed elsewhere, by transaction 0x{hex}, which is not in this data folder ({which} counted here). They are not claimed again</translation>
    </message>
    <message>
        <source>Job {job_id}: {why}. Its tokens are held back, for they may have been paid already</source>
        <translation>Job {job_id}: {why}. Its tokens are held back, for they may have been paid already</translation>
    </message>
    <message>
        <source>Keep the machine from sleeping while a request runs, and only then</source>
        <translation>Keep the machine from sleeping while a request runs, and only then</translation>
    </message>
    <message>
        <source>Key file of the certificate (PEM)</source>
        <translation>Key file of the certificate (PEM)</translation>
    </message>
    <message>
        <source>Layers kept on the GPU; empty: as many as fit</source>
        <translation>Layers kept on the GPU; empty: as many as fit</translation>
    </message>
    <message>
        <source>Ledger and chain disagree</source>
        <translation>Ledger and chain disagree</translation>
    </message>
    <message>
        <source>Light or dark; system follows the desktop</source>
        <translation>Light or dark; system follows the desktop</translation>
    </message>
    <message>
        <source>Load again</source>
        <translation>Load again</translation>
    </message>
    <message>
        <source>Load it again, or choose another model</source>
        <translation>Load it again, or choose another model</translation>
    </message>
    <message>
        <source>Loading the model, {load_progress}</source>
        <translation>Loading the model, {load_progress}</translation>
    </message>
    <message>
        <source>Locate</source>
        <translation>Locate</translation>
    </message>
    <message>
        <source>Name it</source>
        <translation>Name it</translation>
    </message>
    <message>
        <source>No contact with the chain</source>
        <translation>No contact with the chain</translation>
    </message>
    <message>
        <source>No contact with {chain_name} ({text}). Serving goes on up to {max_unproven_tokens} unproven tokens for each known job; claims are queued{queued}</source>
        <translation>No contact with {chain_name} ({text}). Serving goes on up to {max_unproven_tokens} unproven tokens for each known job; claims are queued{queued}</translation>
    </message>
    <message>
        <source>No gas money</source>
        <translation>No gas money</translation>
    </message>
    <message>
        <source>No host key</source>
        <translation>No host key</translation>
    </message>
    <message>
        <source>No host key yet</source>
        <translation>No host key yet</translation>
    </message>
    <message>
        <source>No keyring was found on this system</source>
        <translation>No keyring was found on this system</translation>
    </message>
    <message>
        <source>No model</source>
        <translation>No model</translation>
    </message>
    <message>
        <source>No model is served: {detail}</source>
        <translation>No model is served: {detail}</translation>
    </message>
    <message>
        <source>No model selected</source>
        <translation>No model selected</translation>
    </message>
    <message>
        <source>No node takes the transaction with nonce {nonce}: {text}. It is sent again; later claims wait behind it</source>
        <translation>No node takes the transaction with nonce {nonce}: {text}. It is sent again; later claims wait behind it</translation>
    </message>
    <message>
        <source>No safe place for the key</source>
        <translation>No safe place for the key</translation>
    </message>
    <message>
        <source>No tray on this desktop</source>
        <translation>No tray on this desktop</translation>
    </message>
    <message>
        <source>Not enough ETH for the next claim.{short} Claims wait; nothing is lost</source>
        <translation>Not enough ETH for the next claim.{short} Claims wait; nothing is lost</translation>
    </message>
    <message>
        <source>Not reachable from outside</source>
        <translation>Not reachable from outside</translation>
    </message>
    <message>
        <source>Not serving: the model is not ready</source>
        <translation>Not serving: the model is not ready</translation>
    </message>
    <message>
        <source>Not serving: {message}</source>
        <translation>Not serving: {message}</translation>
    </message>
    <message>
        <source>Open data folder</source>
        <translation>Open data folder</translation>
    </message>
    <message>
        <source>Open job</source>
        <translation>Open job</translation>
    </message>
    <message>
        <source>Open log</source>
        <translation>Open log</translation>
    </message>
    <message>
        <source>Others can connect to this host, and prompts and answers are not encrypted on the way</source>
        <translation>Others can connect to this host, and prompts and answers are not encrypted on the way</translation>
    </message>
    <message>
        <source>Panel that the tray's icon is drawn for; auto follows the desktop's scheme</source>
        <translation>Panel that the tray's icon is drawn for; auto follows the desktop's scheme</translation>
    </message>
    <message>
        <source>Pause while the computer runs on battery</source>
        <translation>Pause while the computer runs on battery</translation>
    </message>
    <message>
        <source>Paused</source>
        <translation>Paused</translation>
    </message>
    <message>
        <source>Paused until you resume</source>
        <translation>Paused until you resume</translation>
    </message>
    <message>
        <source>Paused until {resume_clock}</source>
        <translation>Paused until {resume_clock}</translation>
    </message>
    <message>
        <source>Port the server listens on; 0 picks a free one</source>
        <translation>Port the server listens on; 0 picks a free one</translation>
    </message>
    <message>
        <source>Prompts and answers are not encrypted on the way: set TLS_CERTIFICATE and TLS_KEY</source>
        <translation>Prompts and answers are not encrypted on the way: set TLS_CERTIFICATE and TLS_KEY</translation>
    </message>
    <message>
        <source>Prompts answered at the same time</source>
        <translation>Prompts answered at the same time</translation>
    </message>
    <message>
        <source>Prompts are not encrypted</source>
        <translation>Prompts are not encrypted</translation>
    </message>
    <message>
        <source>Prompts of jobs that cannot be checked because the RPC is away: refuse them, or let them wait 20 s for it</source>
        <translation>Prompts of jobs that cannot be checked because the RPC is away: refuse them, or let them wait 20 s for it</translation>
    </message>
    <message>
        <source>Quit</source>
        <translation>Quit</translation>
    </message>
    <message>
        <source>RPC endpoints, comma separated; the first healthy one is used</source>
        <translation>RPC endpoints, comma separated; the first healthy one is used</translation>
    </message>
    <message>
        <source>Raise the cap</source>
        <translation>Raise the cap</translation>
    </message>
    <message>
        <source>Register it with Fabstir's host tools; this version only reads the register</source>
        <translation>Register it with Fabstir's host tools; this version only reads the register</translation>
    </message>
    <message>
        <source>Requests come through a proxy at {address} that is not in TRUSTED_PROXIES: its clients share one set of limits</source>
        <translation>Requests come through a proxy at {address} that is not in TRUSTED_PROXIES: its clients share one set of limits</translation>
    </message>
    <message>
        <source>Resume</source>
        <translation>Resume</translation>
    </message>
    <message>
        <source>Review</source>
        <translation>Review</translation>
    </message>
    <message>
        <source>Send ETH for gas to your host address</source>
        <translation>Send ETH for gas to your host address</translation>
    </message>
    <message>
        <source>Send up to fifty claims in one transaction (EIP-7702: your account borrows the code for it). Cheaper; undone at once</source>
        <translation>Send up to fifty claims in one transaction (EIP-7702: your account borrows the code for it). Cheaper; undone at once</translation>
    </message>
    <message>
        <source>Serving, waiting for jobs</source>
        <translation>Serving, waiting for jobs</translation>
    </message>
    <message>
        <source>Serving, {request} running</source>
        <translation>Serving, {request} running</translation>
    </message>
    <message>
        <source>Set RPCs that answer and agree</source>
        <translation>Set RPCs that answer and agree</translation>
    </message>
    <message>
        <source>Set RPCs that keep history. If you are sure that they were not claimed, claim this job twice by hand</source>
        <translation>Set RPCs that keep history. If you are sure that they were not claimed, claim this job twice by hand</translation>
    </message>
    <message>
        <source>Set a TLS certificate, or listen on 127.0.0.1</source>
        <translation>Set a TLS certificate, or listen on 127.0.0.1</translation>
    </message>
    <message>
        <source>Set certificate</source>
        <translation>Set certificate</translation>
    </message>
    <message>
        <source>Short by {short_wei} ETH</source>
        <translation>Short by {short_wei} ETH</translation>
    </message>
    <message>
        <source>Show address</source>
        <translation>Show address</translation>
    </message>
    <message>
        <source>Show in the tray's menu what was settled today</source>
        <translation>Show in the tray's menu what was settled today</translation>
    </message>
    <message>
        <source>Show jobs</source>
        <translation>Show jobs</translation>
    </message>
    <message>
        <source>Show transactions</source>
        <translation>Show transactions</translation>
    </message>
    <message>
        <source>Show where it is now</source>
        <translation>Show where it is now</translation>
    </message>
    <message>
        <source>Signing the last claims</source>
        <translation>Signing the last claims</translation>
    </message>
    <message>
        <source>Smaller context</source>
        <translation>Smaller context</translation>
    </message>
    <message>
        <source>Speed up</source>
        <translation>Speed up</translation>
    </message>
    <message>
        <source>Start in the tray without opening the window</source>
        <translation>Start in the tray without opening the window</translation>
    </message>
    <message>
        <source>Start settings</source>
        <translation>Start settings</translation>
    </message>
    <message>
        <source>Start that server, or correct its address</source>
        <translation>Start that server, or correct its address</translation>
    </message>
    <message>
        <source>Starting</source>
        <translation>Starting</translation>
    </message>
    <message>
        <source>Stop now</source>
        <translation>Stop now</translation>
    </message>
    <message>
        <source>Stopped</source>
        <translation>Stopped</translation>
    </message>
    <message>
        <source>Tell how many tokens were settled, at most every ten minutes</source>
        <translation>Tell how many tokens were settled, at most every ten minutes</translation>
    </message>
    <message>
        <source>Tell of problems that stop serving or payment, while the window is not seen</source>
        <translation>Tell of problems that stop serving or payment, while the window is not seen</translation>
    </message>
    <message>
        <source>Tell of warnings, such as gas money that is low</source>
        <translation>Tell of warnings, such as gas money that is low</translation>
    </message>
    <message>
        <source>Tell when the host pauses by itself, and when it serves again</source>
        <translation>Tell when the host pauses by itself, and when it serves again</translation>
    </message>
    <message>
        <source>The GGUF file to serve, or a folder with one; the Models page changes it without a restart</source>
        <translation>The GGUF file to serve, or a folder with one; the Models page changes it without a restart</translation>
    </message>
    <message>
        <source>The RPC limits requests</source>
        <translation>The RPC limits requests</translation>
    </message>
    <message>
        <source>The RPC {limited} limits requests; {then}</source>
        <translation>The RPC {limited} limits requests; {then}</translation>
    </message>
    <message>
        <source>The address {host} is not a registered host; customers cannot book it</source>
        <translation>The address {host} is not a registered host; customers cannot book it</translation>
    </message>
    <message>
        <source>The chain that claims are made on; nothing is signed for another</source>
        <translation>The chain that claims are made on; nothing is signed for another</translation>
    </message>
    <message>
        <source>The chain was not asked yet</source>
        <translation>The chain was not asked yet</translation>
    </message>
    <message>
        <source>The claim for job {jobs}</source>
        <translation>The claim for job {jobs}</translation>
    </message>
    <message>
        <source>The claim of {tokens} tokens for job {job_id} was refused on chain: {plain}. {ends}</source>
        <translation>The claim of {tokens} tokens for job {job_id} was refused on chain: {plain}. {ends}</translation>
    </message>
    <message>
        <source>The computer's clock was set {way} by {seconds}; nothing is lost</source>
        <translation>The computer's clock was set {way} by {seconds}; nothing is lost</translation>
    </message>
    <message>
        <source>The contract is not the expected one</source>
        <translation>The contract is not the expected one</translation>
    </message>
    <message>
        <source>The contract is paused</source>
        <translation>The contract is paused</translation>
    </message>
    <message>
        <source>The gas money is nearly out: it lasts for about {left} more checkpoints</source>
        <translation>The gas money is nearly out: it lasts for about {left} more checkpoints</translation>
    </message>
    <message>
        <source>The gas money lasts for about {left} more checkpoints</source>
        <translation>The gas money lasts for about {left} more checkpoints</translation>
    </message>
    <message>
        <source>The host is inactive</source>
        <translation>The host is inactive</translation>
    </message>
    <message>
        <source>The host is not registered</source>
        <translation>The host is not registered</translation>
    </message>
    <message>
        <source>The host is registered, but not active: {stake}</source>
        <translation>The host is registered, but not active: {stake}</translation>
    </message>
    <message>
        <source>The job ledger cannot be written ({failure}). Serving is stopped to protect earnings</source>
        <translation>The job ledger cannot be written ({failure}). Serving is stopped to protect earnings</translation>
    </message>
    <message>
        <source>The key is locked</source>
        <translation>The key is locked</translation>
    </message>
    <message>
        <source>The key is not valid</source>
        <translation>The key is not valid</translation>
    </message>
    <message>
        <source>The ledger cannot be written</source>
        <translation>The ledger cannot be written</translation>
    </message>
    <message>
        <source>The loaded model is not on this host's list in the register; jobs for it would be refused</source>
        <translation>The loaded model is not on this host's list in the register; jobs for it would be refused</translation>
    </message>
    <message>
        <source>The model does not fit the GPU</source>
        <translation>The model does not fit the GPU</translation>
    </message>
    <message>
        <source>The model file cannot be used</source>
        <translation>The model file cannot be used</translation>
    </message>
    <message>
        <source>The model file is damaged or another</source>
        <translation>The model file is damaged or another</translation>
    </message>
    <message>
        <source>The model file is gone</source>
        <translation>The model file is gone</translation>
    </message>
    <message>
        <source>The model is being loaded</source>
        <translation>The model is being loaded</translation>
    </message>
    <message>
        <source>The model is not on the host's list</source>
        <translation>The model is not on the host's list</translation>
    </message>
    <message>
        <source>The model process gave up</source>
        <translation>The model process gave up</translation>
    </message>
    <message>
        <source>The model process hung</source>
        <translation>The model process hung</translation>
    </message>
    <message>
        <source>The model process hung and is started again{cause}</source>
        <translation>The model process hung and is started again{cause}</translation>
    </message>
    <message>
        <source>The model process restarts</source>
        <translation>The model process restarts</translation>
    </message>
    <message>
        <source>The model process stopped and is started again{cause}</source>
        <translation>The model process stopped and is started again{cause}</translation>
    </message>
    <message>
        <source>The model process stopped too often</source>
        <translation>The model process stopped too often</translation>
    </message>
    <message>
        <source>The model serves, but: {warning}</source>
        <translation>The model serves, but: {warning}</translation>
    </message>
    <message>
        <source>The model to use of that server, by its own name for it; empty: the first that it lists</source>
        <translation>The model to use of that server, by its own name for it; empty: the first that it lists</translation>
    </message>
    <message>
        <source>The port is taken</source>
        <translation>The port is taken</translation>
    </message>
    <message>
        <source>The public address of this host {why}: clients cannot use it</source>
        <translation>The public address of this host {why}: clients cannot use it</translation>
    </message>
    <message>
        <source>The queue is full</source>
        <translation>The queue is full</translation>
    </message>
    <message>
        <source>The queue is full ({queue_limit}). New prompts are told to come back later</source>
        <translation>The queue is full ({queue_limit}). New prompts are told to come back later</translation>
    </message>
    <message>
        <source>The stored key is not a valid key</source>
        <translation>The stored key is not a valid key</translation>
    </message>
    <message>
        <source>The transaction with nonce {nonce}</source>
        <translation>The transaction with nonce {nonce}</translation>
    </message>
    <message>
        <source>They are claimed again</source>
        <translation>They are claimed again</translation>
    </message>
    <message>
        <source>They are kept and tried again</source>
        <translation>They are kept and tried again</translation>
    </message>
    <message>
        <source>They can send prompts for paid jobs, and read health, model name, load and counts</source>
        <translation>They can send prompts for paid jobs, and read health, model name, load and counts</translation>
    </message>
    <message>
        <source>They cannot be paid</source>
        <translation>They cannot be paid</translation>
    </message>
    <message>
        <source>Time to reconnect after a session's last socket closed, before it is settled</source>
        <translation>Time to reconnect after a session's last socket closed, before it is settled</translation>
    </message>
    <message>
        <source>Tokens a job may gather unproven before its prompts wait (also with the RPC down)</source>
        <translation>Tokens a job may gather unproven before its prompts wait (also with the RPC down)</translation>
    </message>
    <message>
        <source>Tokens are counted and kept, but no checkpoint can be submitted</source>
        <translation>Tokens are counted and kept, but no checkpoint can be submitted</translation>
    </message>
    <message>
        <source>Tokens of a job after which a checkpoint is submitted</source>
        <translation>Tokens of a job after which a checkpoint is submitted</translation>
    </message>
    <message>
        <source>Tokens of context a stream gets; empty: automatic</source>
        <translation>Tokens of context a stream gets; empty: automatic</translation>
    </message>
    <message>
        <source>Tokens that cannot be claimed</source>
        <translation>Tokens that cannot be claimed</translation>
    </message>
    <message>
        <source>Try another RPC</source>
        <translation>Try another RPC</translation>
    </message>
    <message>
        <source>Turn batching off</source>
        <translation>Turn batching off</translation>
    </message>
    <message>
        <source>Unlock</source>
        <translation>Unlock</translation>
    </message>
    <message>
        <source>Use one data folder and one machine for each key</source>
        <translation>Use one data folder and one machine for each key</translation>
    </message>
    <message>
        <source>Use this key in one program only</source>
        <translation>Use this key in one program only</translation>
    </message>
    <message>
        <source>Wait for that RPC, or remove it from the setting if it is gone for good</source>
        <translation>Wait for that RPC, or remove it from the setting if it is gone for good</translation>
    </message>
    <message>
        <source>Wait, or raise the cap</source>
        <translation>Wait, or raise the cap</translation>
    </message>
    <message>
        <source>Web origins allowed to connect, comma separated; programs that send none always may</source>
        <translation>Web origins allowed to connect, comma separated; programs that send none always may</translation>
    </message>
    <message>
        <source>What became of nonce {nonce} cannot be judged yet: {error}. It waits; other claims go on</source>
        <translation>What became of nonce {nonce} cannot be judged yet: {error}. It waits; other claims go on</translation>
    </message>
    <message>
        <source>What closing the window does</source>
        <translation>What closing the window does</translation>
    </message>
    <message>
        <source>What to do: {advice}</source>
        <translation>What to do: {advice}</translation>
    </message>
    <message>
        <source>Which of the two contracts claims go to</source>
        <translation>Which of the two contracts claims go to</translation>
    </message>
    <message>
        <source>Who may send prompts without a job (they earn nothing)</source>
        <translation>Who may send prompts without a job (they earn nothing)</translation>
    </message>
    <message>
        <source>Whoever connects can send prompts without a job: you earn nothing for those</source>
        <translation>Whoever connects can send prompts without a job: you earn nothing for those</translation>
    </message>
    <message>
        <source>Wrong chain</source>
        <translation>Wrong chain</translation>
    </message>
    <message>
        <source>Your desktop shows no tray; the window stays in the taskbar</source>
        <translation>Your desktop shows no tray; the window stays in the taskbar</translation>
    </message>
    <message>
        <source>Your keyring is locked. Claims wait; nothing is lost</source>
        <translation>Your keyring is locked. Claims wait; nothing is lost</translation>
    </message>
    <message>
        <source>a reverse proxy</source>
        <translation>a reverse proxy</translation>
    </message>
    <message>
        <source>already on chain with the same proof</source>
        <translation>already on chain with the same proof</translation>
    </message>
    <message>
        <source>answers with status {status_code}</source>
        <translation>answers with status {status_code}</translation>
    </message>
    <message>
        <source>at once</source>
        <translation>at once</translation>
    </message>
    <message>
        <source>at the next start</source>
        <translation>at the next start</translation>
    </message>
    <message>
        <source>claim {claim_id} would be sent with other calldata than was stored</source>
        <translation>claim {claim_id} would be sent with other calldata than was stored</translation>
    </message>
    <message>
        <source>closed by its time-out</source>
        <translation>closed by its time-out</translation>
    </message>
    <message>
        <source>does not answer ({name})</source>
        <translation>does not answer ({name})</translation>
    </message>
    <message>
        <source>every network of this machine</source>
        <translation>every network of this machine</translation>
    </message>
    <message>
        <source>is answered by another program or host</source>
        <translation>is answered by another program or host</translation>
    </message>
    <message>
        <source>it is asked less often</source>
        <translation>it is asked less often</translation>
    </message>
    <message>
        <source>it is on chain already; what is left is planned anew</source>
        <translation>it is on chain already; what is left is planned anew</translation>
    </message>
    <message>
        <source>it was planned with another key and is planned anew</source>
        <translation>it was planned with another key and is planned anew</translation>
    </message>
    <message>
        <source>its transaction was reverted {reverts} times though a trial passed; it is tried again later</source>
        <translation>its transaction was reverted {reverts} times though a trial passed; it is tried again later</translation>
    </message>
    <message>
        <source>nearly out</source>
        <translation>nearly out</translation>
    </message>
    <message>
        <source>no further token</source>
        <translation>no further token</translation>
    </message>
    <message>
        <source>not claimed:</source>
        <translation>not claimed:</translation>
    </message>
    <message>
        <source>of {value} FAB</source>
        <translation>of {value} FAB</translation>
    </message>
    <message>
        <source>perhaps not those</source>
        <translation>perhaps not those</translation>
    </message>
    <message>
        <source>planned with another key</source>
        <translation>planned with another key</translation>
    </message>
    <message>
        <source>putting the code for it on chain fails: {reason}</source>
        <translation>putting the code for it on chain fails: {reason}</translation>
    </message>
    <message>
        <source>signed and stored; no node has confirmed that it took it</source>
        <translation>signed and stored; no node has confirmed that it took it</translation>
    </message>
    <message>
        <source>the RPC cannot tell ({error})</source>
        <translation>the RPC cannot tell ({error})</translation>
    </message>
    <message>
        <source>the RPC does not answer ({error})</source>
        <translation>the RPC does not answer ({error})</translation>
    </message>
    <message>
        <source>the RPC's node takes no transactions with borrowed code (EIP-7702)</source>
        <translation>the RPC's node takes no transactions with borrowed code (EIP-7702)</translation>
    </message>
    <message>
        <source>the code for it is not on this chain, and missing from this installation</source>
        <translation>the code for it is not on this chain, and missing from this installation</translation>
    </message>
    <message>
        <source>the code for it is not on this chain, nor the factory at {value} that would put it there</source>
        <translation>the code for it is not on this chain, nor the factory at {value} that would put it there</translation>
    </message>
    <message>
        <source>the contract does not know this job</source>
        <translation>the contract does not know this job</translation>
    </message>
    <message>
        <source>the contract has paid {paid_tokens} tokens, this ledger had claimed {claimed}</source>
        <translation>the contract has paid {paid_tokens} tokens, this ledger had claimed {claimed}</translation>
    </message>
    <message>
        <source>the contract's total of the job cannot be verified ({error})</source>
        <translation>the contract's total of the job cannot be verified ({error})</translation>
    </message>
    <message>
        <source>the deposit covers less by now; it is planned anew</source>
        <translation>the deposit covers less by now; it is planned anew</translation>
    </message>
    <message>
        <source>the deposit is used up; {claimable} tokens are not covered</source>
        <translation>the deposit is used up; {claimable} tokens are not covered</translation>
    </message>
    <message>
        <source>the first claim of this job needs {first_claim_minimum} tokens, there are {tokens}</source>
        <translation>the first claim of this job needs {first_claim_minimum} tokens, there are {tokens}</translation>
    </message>
    <message>
        <source>the job belongs to host {host}, your key's address is {address}</source>
        <translation>the job belongs to host {host}, your key's address is {address}</translation>
    </message>
    <message>
        <source>the job has no tokens</source>
        <translation>the job has no tokens</translation>
    </message>
    <message>
        <source>the job was already ended</source>
        <translation>the job was already ended</translation>
    </message>
    <message>
        <source>the network of {api_host}</source>
        <translation>the network of {api_host}</translation>
    </message>
    <message>
        <source>this chain does not know borrowed code yet (EIP-7702, since the Prague upgrade)</source>
        <translation>this chain does not know borrowed code yet (EIP-7702, since the Prague upgrade)</translation>
    </message>
    <message>
        <source>transactions of your key are not in this data folder, and what they claimed cannot be read</source>
        <translation>transactions of your key are not in this data folder, and what they claimed cannot be read</translation>
    </message>
    <message>
        <source>{active} is asked instead</source>
        <translation>{active} is asked instead</translation>
    </message>
    <message>
        <source>{activity}; not paid yet: {message}</source>
        <translation>{activity}; not paid yet: {message}</translation>
    </message>
    <message>
        <source>{activity}; tokens are counted, not submitted</source>
        <translation>{activity}; tokens are counted, not submitted</translation>
    </message>
    <message>
        <source>{changes} cannot be used</source>
        <translation>{changes} cannot be used</translation>
    </message>
    <message>
        <source>{left_tokens} more tokens; generation will stop</source>
        <translation>{left_tokens} more tokens; generation will stop</translation>
    </message>
    <message>
        <source>{left} tokens were not claimed before the session was settled and cannot be paid</source>
        <translation>{left} tokens were not claimed before the session was settled and cannot be paid</translation>
    </message>
    <message>
        <source>{names} does not answer. Nonce {nonce} was used by another transaction; its claims get a new one once every RPC has said that it does not have ours</source>
        <translation>{names} does not answer. Nonce {nonce} was used by another transaction; its claims get a new one once every RPC has said that it does not have ours</translation>
    </message>
    <message>
        <source>{rpc} lags behind, or the chain stands still</source>
        <translation>{rpc} lags behind, or the chain stands still</translation>
    </message>
    <message>
        <source>{tokens} tokens cannot be paid: {plain} before they were claimed{unverified}</source>
        <translation>{tokens} tokens cannot be paid: {plain} before they were claimed{unverified}</translation>
    </message>
    <message>
        <source>{used}. Claims go on one at a time, and no fee is raised against it</source>
        <translation>{used}. Claims go on one at a time, and no fee is raised against it</translation>
    </message>
    <message>
        <source>{value} {remaining_tokens} of {first_claim_minimum} tokens until this session can be paid at all</source>
        <translation>{value} {remaining_tokens} of {first_claim_minimum} tokens until this session can be paid at all</translation>
    </message>
    <message>
        <source>{what} waits {minutes} minutes for a block</source>
        <translation>{what} waits {minutes} minutes for a block</translation>
    </message>
    <message numerus="yes">
        <source>%n request(s)</source>
        <translation>
            <numerusform>%n request</numerusform>
            <numerusform>%n requests</numerusform>
        </translation>
    </message>
    <message numerus="yes">
        <source>%n job(s)</source>
        <translation>
            <numerusform>%n job</numerusform>
            <numerusform>%n jobs</numerusform>
        </translation>
    </message>
</context>
</TS>

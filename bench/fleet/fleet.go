// Package fleet computes the requests of a fleet of Vault Agents to Vault and to authorization servers, for three
// ways in which a secrets engine may answer a read.
//
// # Model
//
// Each broker has a Vault Agent with a template for each MCP server. The brokers share the servers' tokens. An agent
// reads the tokens of all its servers when it starts. Then it repeats the read of each token by Vault Agent's rule
// for the answer:
//
//   - Engine: this project's engine. The answer has a ttl, and the agent reads again after ttl+1 s.
//     Each server has one token, refreshed ahead of its end, with the formulas of internal/tokens.
//     A refresh is one request to the authorization server and one storage write.
//   - LeasePerRead: an engine that gets a token for each read and answers with a lease of the
//     token's lifetime. The agent reads again after 85 to 95 % of it, drawn each time. A read is
//     one request to the authorization server, and two storage writes: the lease, which holds a
//     copy of the token, and its index entry. Two more follow when the lease ends.
//   - Polling: an engine whose answer does not say when to read again, as KV v2's. The agent reads
//     again after 85 to 95 % of five minutes. The tokens are those of Engine.
//
// The first readers get the first tokens, and so all at the same time. With Fleet.Before, config writes get them at
// different times. Leases are always for readers.
//
// Reads take no time and never fail. An authorization server answers after Fleet.Latency. So the counts are the load
// of a fleet, whether or not a particular Vault can serve it. They exclude an agent's login and its look-up of each
// path's mount, which happen once, when it starts, with any engine.
package fleet

import (
	"math/rand/v2"
	"time"
)

// A Fleet describes the brokers, the servers and their tokens.
type Fleet struct {
	Brokers  int
	Servers  int
	Lifetime time.Duration // of the tokens
	Spread   time.Duration // the agents start at random within this time
	Before   time.Duration // the first tokens were obtained at random within this time before the start; 0: by the first readers
	Horizon  time.Duration // duration of the simulation; a Result needs at least three lifetimes
	Latency  time.Duration // of the authorization servers
	Seed     uint64
}

// A Scheme is a secrets engine's way to answer a read.
type Scheme int

// The schemes are described in the package's documentation.
const (
	Engine Scheme = iota
	LeasePerRead
	Polling
)

func (s Scheme) String() string {
	return [...]string{"this engine", "lease for each read", "polling"}[s]
}

// pollEvery is the interval at which Vault Agent reads a secret without a lease or a ttl
// (static_secret_render_interval).
const pollEvery = 5 * time.Minute

// A Load counts a fleet's requests in each second of the simulated time.
type Load struct {
	Fleet  Fleet
	Scheme Scheme

	Reads   []int32 // of tokens
	Fetches []int32 // requests to authorization servers
	Writes  []int32 // storage writes of tokens or leases
	Copies  int     // largest number of copies of tokens in storage at a time

	readRate rate    // one agent's reads of one token
	newRate  rate    // new tokens of one server
	held     float64 // seconds for which agents held tokens
	expired  float64 // of these, seconds after the token's end
	copies   []int32 // changes of the number of copies
}

// rate is a number of events and the time in which they happened.
type rate struct {
	events  int
	seconds float64
}

func (r *rate) add(events int, in time.Duration) {
	r.events += events
	r.seconds += in.Seconds()
}

func (r *rate) perSecond() float64 {
	if r.seconds == 0 {
		return 0
	}
	return float64(r.events) / r.seconds
}

// Simulate computes the load. The same fleet gives the same load each time.
func Simulate(f Fleet, scheme Scheme) *Load {
	seconds := int(f.Horizon/time.Second) + 1
	l := &Load{
		Fleet: f, Scheme: scheme,
		Reads: make([]int32, seconds), Fetches: make([]int32, seconds),
		Writes: make([]int32, seconds), copies: make([]int32, seconds),
	}
	rng := rand.New(rand.NewPCG(f.Seed, 0))
	starts := make([]time.Duration, f.Brokers)
	first := f.Horizon
	for i := range starts {
		// Agents that start "at once" do so within one second.
		starts[i] = time.Duration(rng.Float64() * float64(f.Spread+time.Second))
		first = min(first, starts[i])
	}
	for server := range f.Servers {
		rng := rand.New(rand.NewPCG(f.Seed, uint64(server)+1))
		var tokens []token
		if scheme != LeasePerRead {
			tokens = l.history(rng, first)
		}
		for _, start := range starts {
			l.follow(rng, tokens, start)
		}
	}
	held := 0
	for _, change := range l.copies {
		held += int(change)
		l.Copies = max(l.Copies, held)
	}
	return l
}

// history returns a server's tokens during the simulation. The first is obtained for the first reader or earlier, and
// each of the others when its predecessor becomes due.
func (l *Load) history(rng *rand.Rand, first time.Duration) []token {
	var tokens []token
	l.count(l.copies, first, 1) // each token replaces its predecessor
	begin := first
	if l.Fleet.Before > 0 {
		begin = -time.Duration(rng.Float64() * float64(l.Fleet.Before))
	}
	for at := begin; at <= l.Fleet.Horizon; {
		t := newToken(at, l.Fleet.Lifetime, l.Fleet.Latency, rng.Float64())
		tokens = append(tokens, t)
		l.count(l.Fetches, at, 1)
		l.count(l.Writes, t.obtained, 1)
		at = t.refreshAt
	}
	l.newRate.add(len(tokens), tokens[len(tokens)-1].refreshAt-begin)
	return tokens
}

// follow counts the reads of one token by one agent.
func (l *Load) follow(rng *rand.Rand, tokens []token, start time.Duration) {
	var held token
	var answered, expired time.Duration
	last, reads := start, 0
	for at := start; at <= l.Fleet.Horizon; reads++ {
		l.count(l.Reads, at, 1)
		last = at
		if reads > 0 {
			expired += held.over(answered, at)
		}
		if l.Scheme == LeasePerRead {
			held = l.lease(at)
		} else {
			for len(tokens) > 1 && tokens[1].obtained <= at {
				tokens = tokens[1:]
			}
			held = tokens[0]
		}
		answered = max(at, held.obtained) // a reader before the first token waits for it
		at = answered + l.wait(rng, held, answered)
	}
	expired += held.over(answered, l.Fleet.Horizon)
	l.readRate.add(reads-1, last-start)
	l.held += (l.Fleet.Horizon - start).Seconds()
	l.expired += expired.Seconds()
}

// lease counts the requests and storage writes for the lease of one read.
func (l *Load) lease(at time.Duration) token {
	t := newToken(at, l.Fleet.Lifetime, l.Fleet.Latency, 0)
	l.count(l.Fetches, at, 1)
	end := t.obtained + l.Fleet.Lifetime
	l.count(l.Writes, t.obtained, 2)
	l.count(l.copies, t.obtained, 1)
	l.count(l.Writes, end, 2)
	l.count(l.copies, end, -1)
	return t
}

// wait returns how long an agent waits before it reads again a secret obtained at now, by Vault Agent's rules
// (consul-template's leaseCheckWait).
func (l *Load) wait(rng *rand.Rand, t token, now time.Duration) time.Duration {
	draw := rng.Float64()
	switch l.Scheme {
	case LeasePerRead:
		return ofLease(l.Fleet.Lifetime, draw)
	case Polling:
		return ofLease(pollEvery, draw)
	default:
		return t.ttl(now, draw) + time.Second
	}
}

// ofLease returns the time after which Vault Agent reads again a secret whose lease is not renewable.
func ofLease(lease time.Duration, draw float64) time.Duration {
	return time.Duration((0.85 + 0.1*draw) * float64(lease))
}

// count adds n to a series at a time, if the time is within the simulation.
func (l *Load) count(series []int32, at time.Duration, n int32) {
	if i := int(at / time.Second); at >= 0 && i < len(series) {
		series[i] += n
	}
}

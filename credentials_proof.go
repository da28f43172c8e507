package mcpoauth

import (
	"sync"
	"time"
)

// proof identifies the credentials of a token request at now, without a secret. A successful request verifies them
// until they are written again or a rotated key becomes active.
func (c *config) proof(now time.Time) string {
	var keyID string
	if active := c.Keys.activeAt(now); active >= 0 {
		keyID = c.Keys[active].ID
	}
	return c.CredentialsID + "/" + keyID
}

// writeCredentials records that new credentials were written at now.
func (c *config) writeCredentials(now time.Time) {
	c.CredentialsID, c.CredentialsWrittenAt, c.CredentialsProof = newID(), now.UTC().Truncate(time.Second), ""
}

// credentialsSince returns when the credentials in use were written or, after a rotation, when their key became
// active; zero if unknown.
func (c *config) credentialsSince(now time.Time) time.Time {
	since := c.CredentialsWrittenAt
	if active := c.Keys.activeAt(now); active >= 0 && c.Keys[active].ActiveFrom.After(since) {
		return c.Keys[active].ActiveFrom
	}
	return since
}

// proofs holds the last proof of each server in memory.
type proofs struct {
	mu    sync.Mutex // guards known
	known map[string]knownProof
}

type knownProof struct {
	proof  string
	stored bool // storage has the proof: a refresh need not read it
}

func (p *proofs) of(server string) knownProof {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[server]
}

// add records a proof. Storage may not have it yet.
func (p *proofs) add(server, proof string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known == nil {
		p.known = map[string]knownProof{}
	}
	if p.known[server].proof != proof {
		p.known[server] = knownProof{proof: proof}
	}
}

// markStored records that the proof is in storage, unless another has been added since.
func (p *proofs) markStored(server, proof string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known[server].proof == proof {
		p.known[server] = knownProof{proof: proof, stored: true}
	}
}

func (p *proofs) forget(server string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.known, server)
}

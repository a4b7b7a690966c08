package jobs

import (
	"fmt"
	"iter"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// Exposure says that an agent was given a secret version. It is written by the
// transaction that grants the lease, before a byte leaves, and never deleted: it is
// how everything a compromised agent has seen is found.
type Exposure struct {
	Agent   reeve.AgentID  `cbor:"1,keyasint"`
	Secret  reeve.SecretID `cbor:"2,keyasint"`
	Version uint32         `cbor:"3,keyasint"`
	Job     reeve.JobID    `cbor:"4,keyasint"`
	Fence   uint64         `cbor:"5,keyasint"`
	Slot    string         `cbor:"6,keyasint"`
	At      time.Time      `cbor:"7,keyasint"`
}

var exposures = store.NewTable("exposure",
	store.Key(func(e *Exposure) string { return fmt.Sprintf("%016x/%s/%s", e.Fence, e.Job, e.Slot) }),
	store.Index("agent", func(e *Exposure) []string { return []string{string(e.Agent), store.TimePart(e.At)} }),
	store.Index("secret", func(e *Exposure) []string { return []string{string(e.Secret), store.TimePart(e.At)} }),
)

// ExposedTo lists what an agent was given since a time, oldest first.
func ExposedTo(tx *store.Tx, agent reeve.AgentID, since time.Time) iter.Seq2[*Exposure, error] {
	return exposures.Scan(tx, "agent", store.Range{Prefix: []string{string(agent)}, From: store.TimePart(since)})
}

// ExposuresOf lists the agents that were given a secret, oldest first.
func ExposuresOf(tx *store.Tx, secret reeve.SecretID) iter.Seq2[*Exposure, error] {
	return exposures.Scan(tx, "secret", store.Range{Prefix: []string{string(secret)}})
}

package rest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"time"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/mutant"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// replay is what was answered to a request with an idempotency key. It is written in
// the transaction that did the work, so either both exist or neither. Answers hold
// no secrets: calls that return one take no key.
type replay struct {
	Key     string      `cbor:"1,keyasint"` // hash of caller and key
	Request string      `cbor:"2,keyasint"` // hash of route and body
	Answer  []byte      `cbor:"3,keyasint,omitempty"`
	At      time.Time   `cbor:"4,keyasint"`
	About   []allowance `cbor:"5,keyasint,omitempty"` // what the call was allowed to do with what its body names
}

// replayFor is how long a key is remembered.
const replayFor = 24 * time.Hour

var replays = store.NewTable("replay",
	store.Key(func(r *replay) string { return r.Key }),
	store.Index("at", func(r *replay) []string { return []string{store.TimePart(r.At)} }),
)

// update runs fn in a transaction, once for each idempotency key: repeating the
// request gives the first answer again. T must encode as JSON.
func update[T any](ctx context.Context, s *Server, key *string, request any, fn func(*store.Tx, audit.Actor) (T, error)) (T, error) {
	c := ginContext(ctx)
	by := s.actor(c)
	var answer T
	p := permissionOf(ctx)
	err := s.Store.Update(c.Request.Context(), func(tx *store.Tx) error {
		if p != nil {
			if err := p.prove(tx, c); err != nil {
				return err
			}
		}
		if key == nil {
			var err error
			if answer, err = fn(tx, by); err != nil {
				return err
			}
			return p.answered()
		}
		id := digest(by.Kind, by.ID, *key)
		body, err := json.Marshal(request)
		if err != nil {
			return err
		}
		fingerprint := digest(c.Request.Method, c.Request.URL.Path, string(body))
		switch seen, err := replays.Get(tx, id); {
		case err == nil && seen.Request != fingerprint:
			return reeve.Errorf(reeve.Conflict, "idempotency_key_reused", "this Idempotency-Key was used for another request").
				WithFix("make a new key for each new request")
		case err == nil:
			if p != nil {
				if err := p.permitAgain(tx, seen.About); err != nil {
					return err
				}
			}
			return json.Unmarshal(seen.Answer, &answer)
		case reeve.KindOf(err) != reeve.NotFound:
			return err
		}
		if answer, err = fn(tx, by); err == nil {
			err = p.answered()
		}
		if err != nil {
			return err
		}
		encoded, err := json.Marshal(answer)
		if err != nil {
			return err
		}
		if err := forgetOldReplays(tx); err != nil {
			return err
		}
		if mutant.Is(mutant.IdempotencyLost) {
			return nil
		}
		made := &replay{Key: id, Request: fingerprint, Answer: encoded, At: tx.Now()}
		if p != nil && p.rule.access == within {
			made.About = p.about
		}
		return replays.Put(tx, made)
	})
	return answer, err
}

// forgetOldReplays drops a few keys that are past their time, so the table does not grow.
func forgetOldReplays(tx *store.Tx) error {
	var old []string
	for r, err := range replays.Scan(tx, "at", store.Range{To: store.TimePart(tx.Now().Add(-replayFor))}) {
		if err != nil {
			return err
		}
		if old = append(old, r.Key); len(old) == 8 {
			break
		}
	}
	for _, key := range old {
		if err := replays.Delete(tx, key); err != nil {
			return err
		}
	}
	return nil
}

func digest(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256([]byte(p))
		h.Write(sum[:])
	}
	return hex.EncodeToString(h.Sum(nil))
}

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/reeve-pam/reeve/controller/store"
)

// storeRows: updates of one record of 1 KB each, acknowledged after a majority has them on disk. Reeve is the real
// store over the real cluster: sealing, mutual TLS, transactions, reads of one's own writes. The floor is Raft alone.
func storeRows() []row {
	var rows []row
	for _, clients := range []int{64, 256} {
		rows = append(rows, row{
			name: fmt.Sprintf("store-%d", clients),
			work: fmt.Sprintf("store updates, 1 KB, 3 nodes, %d clients", clients),
			unit: "updates/s", more: true, require: 0.6,
			prepare: func(ctx context.Context, e *env) (*sides, error) { return storeSides(ctx, e, clients) },
		})
	}
	return rows
}

func storeSides(ctx context.Context, e *env, clients int) (*sides, error) {
	bare, err := startBare(ctx, e)
	if err != nil {
		return nil, err
	}
	real, err := startStores(ctx, e)
	if err != nil {
		return nil, errors.Join(err, bare.close())
	}
	write := real.writer()
	return &sides{
		floor: func(ctx context.Context) ([]float64, error) { return rate(ctx, e.span(), clients, bare.write) },
		reeve: func(ctx context.Context) ([]float64, error) { return rate(ctx, e.span(), clients, write) },
		close: func() error { return errors.Join(real.close(), bare.close()) },
	}, nil
}

// valueBytes is the size of what one update writes.
const valueBytes = 1 << 10

// record is the smallest thing a table can hold: a key and a value.
type record struct {
	ID    string `cbor:"1,keyasint"`
	Value []byte `cbor:"2,keyasint"`
}

var records = store.NewTable("bench_record", store.Key(func(r *record) string { return r.ID }))

// writer returns the update that is measured. Keys grow, as those of jobs and audit records do.
func (c *stores) writer() func(context.Context) error {
	var last atomic.Int64
	value := bytes.Repeat([]byte("v"), valueBytes)
	run := time.Now().UnixNano()
	return func(ctx context.Context) error {
		r := &record{ID: fmt.Sprintf("%d-%012d", run, last.Add(1)), Value: value}
		return c.leader.Update(ctx, func(tx *store.Tx) error { return records.Put(tx, r) })
	}
}

// rate has clients call do one after the other for the time given, and returns calls per second.
func rate(ctx context.Context, span time.Duration, clients int, do func(context.Context) error) ([]float64, error) {
	var wg sync.WaitGroup
	var done atomic.Int64
	failed := make(chan error, clients)
	began := time.Now()
	for range clients {
		wg.Go(func() {
			for time.Since(began) < span {
				if err := do(ctx); err != nil {
					failed <- err
					return
				}
				done.Add(1)
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	select {
	case err := <-failed:
		return nil, err
	default:
		return []float64{float64(done.Load()) / took.Seconds()}, nil
	}
}

// latencies calls do n times, one after the other, and returns how long each took, in milliseconds.
func latencies(ctx context.Context, n int, do func(context.Context) error) ([]float64, error) {
	var took []float64
	for range n {
		began := time.Now()
		if err := do(ctx); err != nil {
			return nil, err
		}
		took = append(took, milliseconds(time.Since(began)))
	}
	return took, nil
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

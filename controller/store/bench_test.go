package store_test

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/controller/store/storetest"
)

// BenchmarkUpdate measures acknowledged transactions of one sealed 512-byte record with
// two index entries, each commit being fsynced.
func BenchmarkUpdate(b *testing.B) {
	for _, callers := range []int{1, 16, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			s := storetest.New(b)
			var n atomic.Int64
			site := strings.Repeat("s", 512)
			b.SetParallelism(callers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					id := fmt.Sprintf("%012d", n.Add(1))
					err := s.Update(b.Context(), func(tx *store.Tx) error {
						return hosts.Insert(tx, &host{ID: id, Name: id, Site: site})
					})
					if err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkGet measures opening one record in a view.
func BenchmarkGet(b *testing.B) {
	s := storetest.New(b)
	if err := put(b.Context(), s, host{ID: "a", Name: "a"}); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		err := s.View(b.Context(), func(tx *store.Tx) error {
			_, err := hosts.Get(tx, "a")
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

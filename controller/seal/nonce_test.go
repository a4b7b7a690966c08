package seal

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

// wraps is how many values the model seals: a million in CI, 10^8 for the record:
//
//	go test ./controller/seal -run K6 -wraps 100000000
var wraps = flag.Int("wraps", 1_000_000, "values that the model of (key, nonce) seals")

// pair is what makes a value's key, under one term, and its nonce: the salt from which
// HMAC derives the key, and the nonce.
type pair [saltSize + 12]byte

// repeats counts pairs that occur more than once among n, of which fill writes a batch
// at a time, from several goroutines. It compares the first 64 bits of a hash of each,
// in 256 parts that are sorted one by one: 8 bytes of memory each. What differs there
// differs; 10^8 different pairs agree by chance once in 3,700 runs.
func repeats(n int, fill func(batch []pair)) int {
	workers := runtime.GOMAXPROCS(0)
	parts := make([][256][]uint64, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			share := n / workers
			if w == 0 {
				share += n % workers
			}
			for p := range parts[w] {
				parts[w][p] = make([]uint64, 0, share/256+share/4096+64)
			}
			batch := make([]pair, 4096)
			for share > 0 {
				b := batch[:min(share, len(batch))]
				share -= len(b)
				fill(b)
				for i := range b {
					// The bytes are to be random: folding them keeps any repetition, and mixing
					// spreads what is not random after all.
					h := binary.LittleEndian.Uint64(b[i][:]) ^ mix(binary.LittleEndian.Uint64(b[i][8:])) ^ mix(mix(binary.LittleEndian.Uint64(b[i][16:])+uint64(binary.LittleEndian.Uint32(b[i][24:]))*0x9e3779b97f4a7c15))
					h = mix(h)
					parts[w][h>>56] = append(parts[w][h>>56], h)
				}
			}
		})
	}
	wg.Wait()
	found := make([]int, 256)
	next := make(chan int)
	for range workers {
		wg.Go(func() {
			for p := range next {
				var all []uint64
				for w := range workers {
					all = append(all, parts[w][p]...)
					parts[w][p] = nil
				}
				slices.Sort(all)
				for i := 1; i < len(all); i++ {
					if all[i] == all[i-1] {
						found[p]++
					}
				}
			}
		})
	}
	for p := range 256 {
		next <- p
	}
	close(next)
	wg.Wait()
	total := 0
	for _, n := range found {
		total += n
	}
	return total
}

// mix is the finalizer of MurmurHash3, a bijection.
func mix(h uint64) uint64 {
	h ^= h >> 33
	h *= 0xff51afd7ed558ccd
	h ^= h >> 33
	h *= 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}

// The model: a value's pair is 28 bytes of the system's generator, as seal draws them
// (16 of salt, 12 that NewGCMWithRandomNonce draws). TestSealDrawsWhatTheModelDraws
// holds the model against seal itself.
//
// Arithmetic: n values under one term repeat a pair with probability at most n²/2^225,
// for 10^8: 2^-172. Were the key the same for all, the nonce alone would give n²/2^97:
// 2^-44 for 10^8, and 2^-32, the limit of SP 800-38D, at 2^32.5 values; that is why keys are derived.
func TestNoPairOfKeyAndNonceRepeats_K6(t *testing.T) {
	t.Parallel()
	began := time.Now()
	found := repeats(*wraps, func(batch []pair) {
		for i := range batch {
			_, _ = rand.Read(batch[i][:saltSize]) // as seal
			_, _ = rand.Read(batch[i][saltSize:]) // as the AEAD
		}
	})
	if found > 0 {
		t.Errorf("%d pairs of key and nonce repeat among %d", found, *wraps)
	}
	t.Logf("%d wraps in %s: %d repetitions", *wraps, time.Since(began).Round(time.Millisecond), found)
	// The count counts: the same with a generator that repeats 1,000 times.
	var mu sync.Mutex
	made := 0
	if found := repeats(200_000, func(batch []pair) {
		mu.Lock()
		defer mu.Unlock()
		for i := range batch {
			n := made
			if made%200 == 199 {
				n-- // what the one before got
			}
			made++
			sum := sha256.Sum256(binary.LittleEndian.AppendUint64(nil, uint64(n)))
			copy(batch[i][:], sum[:])
		}
	}); found != 1000 {
		t.Errorf("1,000 repetitions were planted and %d found", found)
	}
}

// What seal really writes: salt and nonce differ in every value, in every part, and so
// do the keys derived from the salts.
func TestSealDrawsWhatTheModelDraws_K6(t *testing.T) {
	t.Parallel()
	const n = 50_000
	ring := newKeyring(time.Now())
	own, _ := ring.active(Data)
	salts, nonces, keys := map[[saltSize]byte]bool{}, map[[12]byte]bool{}, map[[32]byte]bool{}
	ones := make([]int, len(pair{})*8)
	for range n {
		v, err := ring.seal("c", Data, nil, []byte("the same value"))
		if err != nil {
			t.Fatal(err)
		}
		p := pair(v[1+4 : 1+4+len(pair{})])
		salts[[saltSize]byte(p[:])], nonces[[12]byte(p[saltSize:])] = true, true
		for bit := range ones {
			ones[bit] += int(p[bit/8] >> (bit % 8) & 1)
		}
		keys[[32]byte(own.messageKey(p[:saltSize]))] = true
	}
	if len(salts) != n || len(nonces) != n || len(keys) != n {
		t.Errorf("%d values: %d salts, %d nonces, %d keys", n, len(salts), len(nonces), len(keys))
	}
	for bit, got := range ones { // a fair bit is off by 8 standard deviations in one of 10^15 cases
		if off := got - n/2; off*off > 64*n/4 {
			t.Errorf("bit %d of salt and nonce is set in %d of %d values", bit, got, n)
		}
	}
	if bytes.Equal(own.messageKey(make([]byte, saltSize)), own.messageKey(append(make([]byte, saltSize-1), 1))) {
		t.Error("two salts give one key")
	}
}

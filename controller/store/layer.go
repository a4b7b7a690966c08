package store

import (
	"sync/atomic"

	"github.com/tidwall/btree"
	"go.etcd.io/bbolt"
)

// cell is what a layer says about a key.
type cell struct {
	value []byte
	gone  bool     // the key is deleted, whatever lies below says
	owner *pending // in the overlay of writes in flight: whose write this is
}

// layer is an ordered set of changes over what lies below it. The zero layer is empty.
// Taking a view is cheap, and a view never changes: a change while one is held leaves it the
// map as it is, and goes on with a copy that shares its nodes.
type layer struct {
	m     *btree.Map[string, cell]
	views *atomic.Int32 // of m that are held; nil: there was none
	bytes int           // keys and values ever put, an upper bound of what is held
}

// layerDegree makes nodes of at most 15 keys: while a view is held each change copies the
// nodes on its way, which counts for more than the depth.
const layerDegree = 8

func (l *layer) set(key string, c cell) {
	if l.m == nil {
		l.m = btree.NewMap[string, cell](layerDegree)
	}
	l.detach()
	l.m.Set(key, c)
	l.bytes += len(key) + len(c.value)
}

func (l *layer) delete(key string) {
	l.detach()
	l.m.Delete(key)
}

// detach leaves the map to the views that are held of it.
func (l *layer) detach() {
	if l.views != nil && l.views.Load() > 0 {
		l.m, l.views = l.m.Copy(), nil
	}
}

func (l *layer) get(key string) (cell, bool) {
	if l.m == nil {
		return cell{}, false
	}
	return l.m.Get(key)
}

func (l *layer) empty() bool { return l.m == nil || l.m.Len() == 0 }

// view is the layer as it is now. Whoever takes it releases it; a view that is never
// released costs a copy, and nothing else.
func (l *layer) view() layer {
	if l.empty() {
		return layer{}
	}
	if l.views == nil {
		l.views = new(atomic.Int32)
	}
	l.views.Add(1)
	return layer{m: l.m, views: l.views}
}

// release ends the use of a view.
func (l *layer) release() {
	if l.views != nil {
		l.views.Add(-1)
	}
}

// snapshot is the state at one moment: a bbolt transaction and the layers above it,
// newest first. It is for one goroutine.
type snapshot struct {
	tx     *bbolt.Tx
	state  *bbolt.Bucket
	point  *bbolt.Cursor // of get, which would make one each time
	layers []layer
	own    layer // a view of its own, beside those of its transaction
}

func (sn *snapshot) get(key string) ([]byte, bool) {
	for i := range sn.layers {
		if c, ok := sn.layers[i].get(key); ok {
			return c.value, !c.gone
		}
	}
	if sn.point == nil {
		sn.point = sn.state.Cursor()
	}
	k, v := sn.point.Seek([]byte(key))
	return v, string(k) == key
}

// source walks a layer or the state file, upwards or downwards, over the keys from <= key
// < to (to "": no bound).
type source struct {
	it       btree.MapIter[string, cell]
	disk     *bbolt.Cursor // nil: it is a layer
	from, to string
	down     bool
	started  bool

	// Where it stands, if ok.
	key string
	c   cell
	ok  bool
}

// next goes on to the next key.
func (s *source) next() {
	if s.disk != nil {
		k, v := s.move()
		s.ok = k != nil && (s.down && string(k) >= s.from || !s.down && (s.to == "" || string(k) < s.to))
		if s.ok {
			s.key, s.c = string(k), cell{value: v}
		}
		return
	}
	switch {
	case s.started && s.down:
		s.ok = s.it.Prev()
	case s.started:
		s.ok = s.it.Next()
	case !s.down:
		s.ok = s.it.Seek(s.from)
	case s.it.Seek(s.to):
		s.ok = s.it.Prev()
	default:
		s.ok = s.it.Last()
	}
	s.started = true
	if s.ok {
		s.key, s.c = s.it.Key(), s.it.Value()
		s.ok = s.down && s.key >= s.from || !s.down && (s.to == "" || s.key < s.to)
	}
}

// move moves the cursor of the state file.
func (s *source) move() (k, v []byte) {
	switch {
	case s.started && s.down:
		return s.disk.Prev()
	case s.started:
		return s.disk.Next()
	}
	s.started = true
	if !s.down {
		return s.disk.Seek([]byte(s.from))
	}
	if k, _ := s.disk.Seek([]byte(s.to)); k == nil {
		return s.disk.Last()
	}
	return s.disk.Prev()
}

// scan calls yield for every key with from <= key < to (to "": no bound), in ascending
// order; the newest word on a key counts. Values are valid until the snapshot ends.
func (sn *snapshot) scan(from, to string, yield func(key string, value []byte) bool) {
	merge(sn.sources(from, to, false), yield)
}

// scanDown is scan in descending order; to is a bound, never "".
func (sn *snapshot) scanDown(from, to string, yield func(key string, value []byte) bool) {
	merge(sn.sources(from, to, true), yield)
}

// sources are all layers, newest first, and the disk.
func (sn *snapshot) sources(from, to string, down bool) []source {
	out := make([]source, 0, len(sn.layers)+1)
	for i := range sn.layers {
		if !sn.layers[i].empty() {
			out = append(out, source{it: sn.layers[i].m.Iter()})
		}
	}
	out = append(out, source{disk: sn.state.Cursor()})
	for i := range out {
		out[i].from, out[i].to, out[i].down = from, to, down
		out[i].next()
	}
	return out
}

// merge yields every key of the sources once, in their order, with what the first source
// that has it says, but those that it says are gone.
func merge(sources []source, yield func(key string, value []byte) bool) {
	for {
		first := (*source)(nil)
		for i := range sources {
			if s := &sources[i]; s.ok && (first == nil || s.key != first.key && s.key < first.key != s.down) {
				first = s
			}
		}
		if first == nil {
			return
		}
		key, c := first.key, first.c
		for i := range sources {
			if s := &sources[i]; s.ok && s.key == key {
				s.next()
			}
		}
		if !c.gone && !yield(key, c.value) {
			return
		}
	}
}

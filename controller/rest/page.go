package rest

import (
	"encoding/base64"
	"iter"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// cursors are opaque to callers: base64 of the last key seen.
func encodeCursor(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }

func decodeCursor(c *string) (string, error) {
	if c == nil || *c == "" {
		return "", nil
	}
	key, err := base64.RawURLEncoding.DecodeString(*c)
	if err != nil || encodeCursor(string(key)) != *c {
		return "", reeve.Errorf(reeve.Invalid, "cursor_invalid", "the cursor is not one this API gave").WithFix("start again without cursor")
	}
	return string(key), nil
}

// seen leaves out of seq what the caller may not see.
func seen[T any](seq iter.Seq2[*T, error], sees func(*T) (bool, error)) iter.Seq2[*T, error] {
	return func(yield func(*T, error) bool) {
		for in, err := range seq {
			show := err != nil
			if err == nil {
				show, err = sees(in)
			}
			if (show || err != nil) && !yield(in, err) {
				return
			}
		}
	}
}

// page takes up to limit items from seq. next is the cursor of the next page, nil if
// this was the last one.
func page[In, Out any](seq iter.Seq2[*In, error], limit *int, key func(*In) string, show func(*In) (Out, error)) (items []Out, next *string, err error) {
	most := 100 // the contract's default
	if limit != nil {
		most = *limit
	}
	items = []Out{}
	last := ""
	for in, err := range seq {
		if err != nil {
			return nil, nil, err
		}
		if len(items) == most {
			c := encodeCursor(last)
			return items, &c, nil
		}
		out, err := show(in)
		if err != nil {
			return nil, nil, err
		}
		items = append(items, out)
		last = key(in)
	}
	return items, nil, nil
}

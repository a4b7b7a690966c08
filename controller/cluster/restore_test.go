package cluster

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/reeve-pam/reeve/internal/reeve"
)

func TestRestoreReplacesTheStateOfAllMembers(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.cluster(3)
	l.mustPut("kept")
	leader := l.leader()
	backup, err := leader.state.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var stream bytes.Buffer
	if _, err := backup.WriteTo(&stream); err != nil {
		t.Fatal(err)
	}
	index := leader.ledger().AppliedIndex()
	l.mustPut("undone")
	wantCode(t, l.followers()[0].Restore(t.Context(), bytes.NewReader(nil), 0, index), reeve.Unavailable, "not_leader")
	if err := leader.Restore(t.Context(), &stream, int64(stream.Len()), index); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := leader.VerifyLeader(ctx); err != nil {
		t.Fatalf("reads wait in vain after a restore: %v", err)
	}
	agree(t, []string{"kept"}, l.members...)
	l.mustPut("after")
	agree(t, []string{"kept", "after"}, l.members...)
	for _, m := range l.members { // the restored state is what a restart finds
		if err := m.stop(); err != nil {
			t.Fatal(err)
		}
		m.start()
	}
	l.mustPut("again")
	agree(t, []string{"kept", "after", "again"}, l.members...)
}

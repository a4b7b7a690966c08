package rest

import (
	"context"
	"fmt"
	"time"

	"github.com/reeve-pam/reeve/api/client"
	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/controller/store"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// clockReasons puts a doubt into words; the number is how far the clock is off.
var clockReasons = map[store.ClockReason]string{
	store.ClockJumped: "the leader's clock was set by %s while it ran",
	store.ClockBehind: "the leader's clock differs by %s from the last time the cluster has recorded",
	store.ClockPeers:  "the leader's clock differs by %s from the other controllers'",
	store.ClockIdle:   "the leader's clock says that the cluster was off for %s",
}

// clock is the doubt about the leader's clock, nil if there is none.
func (s *Server) clock() *client.ClockDoubt {
	d, ok := s.Store.Clock()
	if !ok {
		return nil
	}
	off := d.Ahead.Round(time.Second)
	return &client.ClockDoubt{Reason: client.ClockDoubtReason(d.Reason), Since: d.Since, AheadSeconds: d.Ahead.Seconds(),
		Detail: fmt.Sprintf(clockReasons[d.Reason], off) + "; nothing is begun because of the time",
		Fix:    "set the clock of " + s.Name + " right, or if it is right: reeve cluster accept-clock"}
}

// AcceptClock implements the contract. The record has the time that went on so far.
func (s *Server) AcceptClock(ctx context.Context, _ AcceptClockRequestObject) (AcceptClockResponseObject, error) {
	_, err := update(ctx, s, nil, nil, func(tx *store.Tx, by audit.Actor) (none, error) {
		d, ok := s.Store.Clock()
		if !ok {
			return none{}, reeve.Errorf(reeve.Conflict, "clock_agrees", "the leader's clock is not in doubt").WithFix("there is nothing to accept")
		}
		return none{}, audit.Record(tx, audit.Event{By: by, Action: "cluster.accept_clock", Object: string(s.Node), Details: map[string]string{
			"reason": string(d.Reason), "since": d.Since.Format(time.RFC3339), "ahead": d.Ahead.Round(time.Second).String()}})
	})
	if err != nil {
		return nil, err
	}
	if _, err := s.Store.AcceptClock(); err != nil {
		return nil, err
	}
	return AcceptClock204Response{}, nil
}

package cluster

import (
	"os"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"
)

// registerMetrics publishes the node's gauges until the returned function is called.
// hashicorp/raft's own metrics go to a sink that is global to the process, where nodes
// in one process would overwrite each other; these are read when they are scraped.
func (n *Node) registerMetrics() (unregister func()) {
	if n.cfg.Registry == nil {
		return func() {}
	}
	r := n.raft.Load()
	var gauges []prometheus.Collector
	gauge := func(name, help string, value func() float64) {
		g := prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: "reeve", Subsystem: "raft", Name: name, Help: help}, value)
		if err := n.cfg.Registry.Register(g); err != nil {
			n.log.Warn("raft: a metric is not published", "metric", name, "error", err)
			return
		}
		gauges = append(gauges, g)
	}
	gauge("leader", "1 while this node leads and takes writes.", func() float64 {
		if n.IsLeader() {
			return 1
		}
		return 0
	})
	gauge("term", "Current term.", func() float64 { return float64(r.CurrentTerm()) })
	gauge("commit_index", "Newest entry known to be committed.", func() float64 { return float64(r.CommitIndex()) })
	gauge("applied_index", "Newest entry in this node's state.", func() float64 { return float64(n.fsm.Load().visible.Load()) })
	gauge("peers", "Members of the cluster, this node included.", func() float64 {
		return float64(len(r.GetConfiguration().Configuration().Servers))
	})
	gauge("last_contact_seconds", "Time since a follower last heard from the leader; 0 on the leader, -1 if never.", func() float64 {
		switch last := r.LastContact(); {
		case r.State() == raft.Leader:
			return 0
		case last.IsZero():
			return -1
		default:
			return time.Since(last).Seconds()
		}
	})
	gauge("oldest_proposal_seconds", "Age of the oldest write that is neither committed nor refused.", func() float64 {
		return max(n.age(&n.enqueued), n.age(&n.oldest)).Seconds()
	})
	gauge("log_file_bytes", "Size of the log's file. It never shrinks.", func() float64 {
		info, err := os.Stat(logPath(n.cfg.DataDir))
		if err != nil {
			return -1
		}
		return float64(info.Size())
	})
	gauge("log_free_pages", "Unused pages in the log's file; many of them slow down writes.", func() float64 {
		return float64(n.bolt.Stats().FreePageN)
	})
	return func() {
		for _, g := range gauges {
			n.cfg.Registry.Unregister(g)
		}
	}
}

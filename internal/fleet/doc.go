//go:build linux

// Package fleet runs Reeve's own programs for the demo, the chaos program and the
// benchmarks: controllers, agents and the command line, each a process of its own, as an
// operator would run them. It owns the processes, their directories and their logs, and
// can treat a process as fate does: kill -9, SIGSTOP, SIGCONT. The product never imports
// it.
//
//	f, err := fleet.New(fleet.Options{Dir: dir, Bin: "bin", Timing: "lan"})
//	defer f.Stop()
//	err = f.StartControllers(ctx, 3)
//	err = f.RegisterConnectors(ctx)
//	a, err := f.AddAgent(ctx, fleet.AgentOptions{Name: "dmz-1", Site: "dmz"})
//	err = f.CLI(ctx, "", nil, "asset", "list")
//	sites, err := fleet.Call[client.SitePage](ctx, f, func(ctx context.Context, api *client.Client) (*http.Response, error) {
//		return api.ListSites(ctx, nil)
//	})
//
// Processes die with the process that started them, and with Stop.
package fleet

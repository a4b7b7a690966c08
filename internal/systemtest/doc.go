// Package systemtest runs whole clusters for tests: real controllers, in this process or
// each in its own, real agents, real connectors, on loopback and in temporary
// directories. What it does to a cluster it does through the API, as an administrator
// would. Its own tests hold the system to its invariants on real targets; external tests
// of other packages may import it, the product never does.
//
//	c := systemtest.Start(t, systemtest.Options{})
//	site := systemtest.Call[client.Site](c, func(api *client.Client) (*http.Response, error) {
//		return api.AddSite(t.Context(), nil, client.SiteRequest{Name: "dmz"})
//	})
//	c.Agent("dmz", systemtest.AgentOptions{})
//
// Everything ends with the test. Methods fail the test instead of returning errors, so
// they are called from the test's own goroutine, except where they say otherwise.
package systemtest

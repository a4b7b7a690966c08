// Package gateway is the gRPC server to which agents connect: agentv1.AgentService
// over mutual TLS. It decides nothing about jobs or identities; it sees to it that
// nothing is said to anybody but the agent a certificate stands for, and translates.
//
// Every call passes one place, Server.admit: leader, certificate, registry. Streams
// are looked at again every recheck, so that a ban ends them. Who an agent is and
// which site it serves come from its certificate, never from a message.
//
// The composition imports it; it imports jobs and pki.
package gateway

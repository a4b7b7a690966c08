// Package pki owns the cluster's certificates and who may have one: two certificate
// authorities with nothing in common, one for controllers ("nodes") and one for
// agents; the registries of both; the join tokens with which they come in; and the
// TLS configurations in which the certificates are used.
//
// Which site an agent serves, and who it is, come from its certificate alone:
//
//	spiffe://<cluster>/node/<node id>
//	spiffe://<cluster>/site/<site id>/agent/<agent id>
//
// gateway, rest and the controller's composition import it; it imports seal, audit
// and store. The agent does not: it reads join tokens with internal/jointoken.
package pki

// Package seal owns the keys under which the controller's data rests: the seal key
// (split into Shamir shares, or kept in a key file), the root key it wraps, and the
// keyring the root key wraps. A node starts sealed; its Manager seals and opens
// nothing until enough shares were given to that node.
//
//	seal key  – shares or key file, never stored
//	 └ root key – wrapped by the seal key
//	    └ keyring – wrapped by the root key: one or more terms for each purpose
//	       └ message key – derived for each sealed value from a random salt
//
// The wrapped state is a row of a plain table, so that every node, also a sealed
// one, replicates it. The controller's composition, pki, vault and tests import
// this package; it imports store and audit.
package seal

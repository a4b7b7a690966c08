package toy

import "time"

// Account is an account on a Machine.
type Account struct {
	ID       string    `json:"id"` // never reused
	Owner    string    `json:"owner"`
	Comment  string    `json:"comment"`
	Password string    `json:"password"`
	Locked   bool      `json:"locked"`
	Disabled bool      `json:"disabled"` // which a login does not show
	Change   bool      `json:"change"`   // the password, before anything else
	Expires  time.Time `json:"expires"`
	Changed  time.Time `json:"changed"`
	Groups   []string  `json:"groups"`
	Sessions int       `json:"sessions,omitempty"` // only in answers
	Refused  int       `json:"refused,omitempty"`  // logins; likewise
}

// request and response are the lines of the machine's protocol: one JSON object each.
// The machine speaks first, with its key.
type request struct {
	Op      string  `json:"op"`
	Name    string  `json:"name,omitempty"`
	Text    string  `json:"text,omitempty"`
	Account Account `json:"account,omitzero"`
}

type response struct {
	Key      string             `json:"key,omitempty"`
	Error    string             `json:"error,omitempty"`
	Account  *Account           `json:"account,omitempty"`
	Accounts map[string]Account `json:"accounts,omitempty"`
	Out      string             `json:"out,omitempty"`
	Err      string             `json:"err,omitempty"`
	Status   *int               `json:"status,omitempty"` // the end of a command
}

package main

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"io"
	"regexp"
	"strconv"
	"strings"
)

// Names of MS-WSMV and of the specifications below it.
const (
	nsShell      = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	nsTransfer   = "http://schemas.xmlsoap.org/ws/2004/09/transfer/"
	stateDone    = nsShell + "/CommandState/Done"
	stateRunning = nsShell + "/CommandState/Running"
	statePending = nsShell + "/CommandState/Pending"
	actionFault  = "/fault" // of wsman, addressing and transfer alike
)

// envelope is an answer of the server, as far as it matters.
type envelope struct {
	XMLName xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
	Header  struct {
		Action string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing Action"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Header"`
	Body struct {
		Shell struct {
			ID string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell ShellId"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Shell"`
		Created struct {
			Selectors []selector `xml:"ReferenceParameters>SelectorSet>Selector"`
		} `xml:"http://schemas.xmlsoap.org/ws/2004/09/transfer ResourceCreated"`
		Command struct {
			ID string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandId"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandResponse"`
		Receive struct {
			Streams []stream      `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Stream"`
			State   *commandState `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandState"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell ReceiveResponse"`
		Identify *struct {
			Version string `xml:"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd ProductVersion"`
		} `xml:"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd IdentifyResponse"`
		Fault *struct {
			Windows struct {
				Code string `xml:"Code,attr"`
			} `xml:"Detail>WSManFault"`
		} `xml:"http://www.w3.org/2003/05/soap-envelope Fault"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Body"`
}

type selector struct {
	Name  string `xml:"Name,attr"`
	Value string `xml:",chardata"`
}

type stream struct {
	Name    string `xml:"Name,attr"`
	Command string `xml:"CommandId,attr"`
	Data    string `xml:",chardata"`
}

type commandState struct {
	Command string `xml:"CommandId,attr"`
	State   string `xml:"State,attr"`
	Exit    string `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell ExitCode"`
}

var (
	errNotSOAP = errors.New("the answer is no SOAP envelope that is understood")
	// idOf is what a shell or a command is called; it goes into our requests as it is.
	idOf = regexp.MustCompile(`^[0-9A-Fa-f-]{1,64}$`)
)

// parseEnvelope reads an answer: all of it, and nothing behind it.
func parseEnvelope(body []byte) (*envelope, error) {
	d := xml.NewDecoder(bytes.NewReader(body))
	var e envelope
	if err := d.Decode(&e); err != nil {
		return nil, errNotSOAP
	}
	for {
		t, err := d.Token()
		if errors.Is(err, io.EOF) {
			return &e, nil
		}
		if text, ok := t.(xml.CharData); err != nil || !ok || len(bytes.TrimSpace(text)) > 0 {
			return nil, errNotSOAP
		}
	}
}

// fault is the number Windows gives a failure; failed is false if the answer is none, and the number 0 if there is none.
func (e *envelope) fault() (code uint32, failed bool) {
	if e.Body.Fault == nil {
		return 0, strings.HasSuffix(e.Header.Action, actionFault)
	}
	n, err := strconv.ParseUint(e.Body.Fault.Windows.Code, 10, 32)
	if err != nil {
		return 0, true
	}
	return uint32(n), true
}

// shellID is the name of a new shell; "" if the answer has none.
func (e *envelope) shellID() string {
	id := e.Body.Shell.ID
	for _, s := range e.Body.Created.Selectors {
		if id == "" && s.Name == "ShellId" {
			id = s.Value
		}
	}
	return checkID(id)
}

func (e *envelope) commandID() string { return checkID(e.Body.Command.ID) }

func checkID(id string) string {
	if id = strings.TrimSpace(id); !idOf.MatchString(id) {
		return ""
	}
	return id
}

// output is a piece of what a command printed.
type output struct {
	stderr bool
	data   []byte
}

// received reads what a command printed since last time, and whether it has ended and how.
func (e *envelope) received(command string) (pieces []output, done bool, exit int, err error) {
	for _, s := range e.Body.Receive.Streams {
		if s.Name != "stdout" && s.Name != "stderr" || !strings.EqualFold(s.Command, command) {
			return nil, false, 0, errNotSOAP
		}
		data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(s.Data))
		if err != nil {
			return nil, false, 0, errNotSOAP
		}
		if len(data) > 0 {
			pieces = append(pieces, output{s.Name == "stderr", data})
		}
	}
	state := e.Body.Receive.State
	switch {
	case state == nil:
		return pieces, false, 0, nil
	case !strings.EqualFold(state.Command, command):
		return nil, false, 0, errNotSOAP
	case state.State == stateRunning, state.State == statePending:
		return pieces, false, 0, nil
	case state.State != stateDone:
		return nil, false, 0, errNotSOAP
	}
	// Windows writes exit statuses as unsigned or signed 32 bits.
	n, err := strconv.ParseInt(strings.TrimSpace(state.Exit), 10, 64)
	if err != nil || n < -1<<31 || n >= 1<<32 {
		return nil, false, 0, errNotSOAP
	}
	return pieces, true, int(int32(uint32(n))), nil
}

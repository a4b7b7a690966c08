package winrm

import (
	"crypto/rand"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const (
	nsShell    = "http://schemas.microsoft.com/wbem/wsman/1/windows/shell"
	nsTransfer = "http://schemas.xmlsoap.org/ws/2004/09/transfer/"
)

// request is a message of a client.
type request struct {
	XMLName xml.Name `xml:"http://www.w3.org/2003/05/soap-envelope Envelope"`
	Header  struct {
		Action    string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing Action"`
		MessageID string `xml:"http://schemas.xmlsoap.org/ws/2004/08/addressing MessageID"`
		Resource  string `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd ResourceURI"`
		Timeout   string `xml:"http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd OperationTimeout"`
		Selectors []item `xml:"SelectorSet>Selector"`
		Options   []item `xml:"OptionSet>Option"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Header"`
	Body struct {
		Identify *struct{} `xml:"http://schemas.dmtf.org/wbem/wsman/identity/1/wsmanidentity.xsd Identify"`
		Shell    *struct {
			Idle string `xml:"IdleTimeOut"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Shell"`
		Line *struct {
			Command   string
			Arguments []string
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell CommandLine"`
		Receive struct {
			Desired struct {
				Command string `xml:"CommandId,attr"`
			} `xml:"DesiredStream"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Receive"`
		Send struct {
			Streams []struct {
				Name    string `xml:",attr"`
				Command string `xml:"CommandId,attr"`
				End     string `xml:",attr"`
				Data    string `xml:",chardata"`
			} `xml:"Stream"`
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Send"`
		Signal struct {
			Command string `xml:"CommandId,attr"`
			Code    string
		} `xml:"http://schemas.microsoft.com/wbem/wsman/1/windows/shell Signal"`
	} `xml:"http://www.w3.org/2003/05/soap-envelope Body"`
}

type item struct {
	Name  string `xml:"Name,attr"`
	Value string `xml:",chardata"`
}

func valueOf(items []item, name string) string {
	for _, i := range items {
		if i.Name == name {
			return i.Value
		}
	}
	return ""
}

// wait is how long the client lets us look for output: of PT20S and the like.
func (r *request) wait() time.Duration {
	s, ok := strings.CutPrefix(r.Header.Timeout, "PT")
	n, err := strconv.ParseFloat(strings.TrimSuffix(s, "S"), 64)
	if !ok || err != nil || n <= 0 || n > 3600 {
		return time.Minute
	}
	return time.Duration(n * float64(time.Second))
}

// action is the last word of what is asked for.
func (r *request) action() string {
	if r.Body.Identify != nil {
		return "Identify"
	}
	return r.Header.Action[strings.LastIndexByte(r.Header.Action, '/')+1:]
}

// answer is a status and a message.
type answer struct {
	status int
	body   string
}

const namespaces = `xmlns:s="http://www.w3.org/2003/05/soap-envelope" xmlns:a="http://schemas.xmlsoap.org/ws/2004/08/addressing" ` +
	`xmlns:w="http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd" xmlns:x="http://schemas.xmlsoap.org/ws/2004/09/transfer" ` +
	`xmlns:rsp="` + nsShell + `" xmlns:p="http://schemas.microsoft.com/wbem/wsman/1/wsman.xsd"`

func (r *request) reply(action, body string) answer {
	return answer{200, fmt.Sprintf(`<s:Envelope xml:lang="en-US" %s><s:Header><a:Action>%s</a:Action><a:MessageID>uuid:%s</a:MessageID>`+
		`<a:To>http://schemas.xmlsoap.org/ws/2004/08/addressing/role/anonymous</a:To><a:RelatesTo>%s</a:RelatesTo></s:Header>`+
		`<s:Body>%s</s:Body></s:Envelope>`, namespaces, action, newID(), escaped(r.Header.MessageID), body)}
}

// Numbers of faults (wsmerror.h).
const (
	faultAccess    = 5
	faultTimedOut  = 0x80338029
	faultNoShell   = 0x8033805B
	faultBadAction = 0x80338001
	faultNoShells  = 0x803381AC
	faultQuota     = 0x803381A5
	faultCommands  = 0x803381E9
)

// fault refuses. Windows sends the number and a text in its own language, which quotes.
func (r *request) fault(code uint32, subcode, text string) answer {
	f := r.reply("http://schemas.dmtf.org/wbem/wsman/1/wsman/fault", fmt.Sprintf(
		`<s:Fault><s:Code><s:Value>s:Receiver</s:Value><s:Subcode><s:Value>%s</s:Value></s:Subcode></s:Code>`+
			`<s:Reason><s:Text xml:lang="en-US">%s</s:Text></s:Reason><s:Detail>`+
			`<f:WSManFault xmlns:f="http://schemas.microsoft.com/wbem/wsman/1/wsmanfault" Code="%d" Machine="%s"><f:Message>%s</f:Message></f:WSManFault>`+
			`</s:Detail></s:Fault>`, subcode, escaped(text), code, HostName, escaped(text)))
	f.status = 500
	return f
}

func escaped(s string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(s)) // a Builder takes everything
	return b.String()
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return fmt.Sprintf("%X-%X-%X-%X-%X", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

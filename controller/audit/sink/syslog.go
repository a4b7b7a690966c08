package sink

import (
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"

	"github.com/reeve-pam/reeve/controller/audit"
	"github.com/reeve-pam/reeve/internal/auditchain"
	"github.com/reeve-pam/reeve/internal/reeve"
)

// logAudit is the facility "log audit" of RFC 5424, table 1.
const logAudit = 13

// element is the name of our structured data. 32473 is the enterprise number that RFC 5612
// keeps for examples: the project has none of its own.
const element = "reeve@32473"

// syslogFrame is a record as an RFC 5424 message whose text is the record as it is
// exported, hashes and all, framed by its length (RFC 5425 section 4.3).
func syslogFrame(node string, e *audit.Entry) ([]byte, error) {
	line, err := auditchain.Encode(e)
	if err != nil {
		return nil, err
	}
	return octets(header(node, e) + " " + strings.TrimSuffix(string(line), "\n")), nil
}

func octets(message string) []byte { return []byte(strconv.Itoa(len(message)) + " " + message) }

// header is everything before the text.
func header(node string, e *audit.Entry) string {
	var b strings.Builder
	b.WriteString("<" + strconv.Itoa(logAudit*8+severity(e)) + ">1 " + e.Time.UTC().Format("2006-01-02T15:04:05.000000Z") + " " +
		token(node, 255) + " reeve - " + token(e.Action, 32) + " [" + element)
	for _, p := range [][2]string{
		{"sequence", strconv.FormatUint(e.Sequence, 10)}, {"action", e.Action}, {"object", e.Object}, {"outcome", e.Outcome},
		{"actorKind", e.Actor.Kind}, {"actorId", e.Actor.ID}, {"actorName", e.Actor.Name}, {"from", e.Actor.From}, {"node", e.Actor.Node}, {"hash", e.Hash},
	} {
		if p[1] != "" {
			b.WriteString(" " + p[0] + `="` + paramEscapes.Replace(printable(p[1])) + `"`)
		}
	}
	b.WriteString("]")
	return b.String()
}

// severity: 6 is informational, 4 a warning, 3 an error (RFC 5424, table 2).
func severity(e *audit.Entry) int {
	switch e.Outcome {
	case audit.Denied:
		return 4
	case audit.Failed:
		return 3
	default:
		return 6
	}
}

// paramEscapes are those of RFC 5424 section 6.3.3.
var paramEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, `]`, `\]`)

// token is s as a field of the header: printable ASCII without space, "-" for nothing.
func token(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < '!' || r > '~' {
			return '_'
		}
		return r
	}, s)
	if s == "" {
		return "-"
	}
	return s[:min(len(s), most)]
}

// printable has no control characters, with which a receiver that writes lines could be
// made to write a line of somebody else's.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// The escapes of the Common Event Format, version 0: those of its header and of the values
// after it.
var (
	cefHeader = strings.NewReplacer(`\`, `\\`, `|`, `\|`)
	cefValue  = strings.NewReplacer(`\`, `\\`, `=`, `\=`)
)

// cefSeverity is on CEF's scale of 0 to 10.
func cefSeverity(e *audit.Entry) string {
	switch e.Outcome {
	case audit.Denied:
		return "6"
	case audit.Failed:
		return "5"
	default:
		return "3"
	}
}

// cefFrame is a record in the Common Event Format, in the frame of syslogFrame. What CEF
// has no key for is JSON in msg.
func cefFrame(node string, e *audit.Entry) ([]byte, error) {
	more, err := json.Marshal(map[string]any{"details": e.Details, "before": e.Before, "after": e.After})
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	b.WriteString("CEF:0")
	for _, field := range []string{"Reeve", "Reeve", reeve.Version, e.Action, e.Action, cefSeverity(e)} {
		b.WriteString("|" + cefHeader.Replace(printable(field)))
	}
	b.WriteString("|")
	src := ""
	if ip, err := netip.ParseAddr(e.Actor.From); err == nil {
		src = ip.String()
	}
	sep := ""
	for _, p := range [][2]string{
		{"rt", strconv.FormatInt(e.Time.UnixMilli(), 10)}, {"externalId", strconv.FormatUint(e.Sequence, 10)}, {"act", e.Action}, {"outcome", e.Outcome},
		{"suid", e.Actor.ID}, {"suser", e.Actor.Name}, {"src", src}, {"dvchost", node},
		{"cs1Label", "object"}, {"cs1", e.Object}, {"cs2Label", "hash"}, {"cs2", e.Hash}, {"cs3Label", "previousHash"}, {"cs3", e.Prev},
		{"cs4Label", "actorKind"}, {"cs4", e.Actor.Kind}, {"cs5Label", "node"}, {"cs5", e.Actor.Node}, {"cs6Label", "revision"}, {"cs6", strconv.FormatUint(e.Revision, 10)},
		{"msg", string(more)},
	} {
		if p[1] != "" {
			b.WriteString(sep + p[0] + "=" + cefValue.Replace(printable(p[1])))
			sep = " "
		}
	}
	return octets(header(node, e) + " " + b.String()), nil
}

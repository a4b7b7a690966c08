package rest

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"

	"github.com/reeve-pam/reeve/internal/reeve"
)

// explain turns the validator's error into one of our codes, without its text: what the
// message says comes from the contract alone, never from the request.
func explain(r *routers.Route, err error) error {
	if err == nil {
		return nil
	}
	where, pointer := "the body", ""
	se, isSchema := errors.AsType[*openapi3.SchemaError](err)
	if re, ok := errors.AsType[*openapi3filter.RequestError](err); ok && re.Parameter != nil {
		where = fmt.Sprintf("the %s parameter %s", re.Parameter.In, re.Parameter.Name)
		if !isSchema {
			return reeve.Errorf(reeve.Invalid, "wrong_type", "%s has the wrong type", where).WithFix("correct it and send the request again")
		}
	} else if isSchema {
		if pointer = known(bodySchema(r), se.JSONPointer()); pointer != "" {
			where = "the field " + pointer
		}
	}
	if !isSchema {
		return reeve.Errorf(reeve.Invalid, "malformed_request", "%s could not be read", where).
			WithFix("send it as the API description says")
	}
	code, message := violation(se, where)
	return reeve.Errorf(reeve.Invalid, code, "%s", message).
		WithFix("correct it and send the request again").WithField(pointer)
}

func violation(se *openapi3.SchemaError, where string) (code, message string) {
	switch se.SchemaField {
	case "properties", "additionalProperties":
		return "unknown_field", where + " has a field that is not known; known are " + orNone(slices.Collect(maps.Keys(se.Schema.Properties)))
	case "type", "nullable":
		return "wrong_type", where + " has the wrong type"
	case "required":
		return "field_required", where + " is missing"
	case "pattern":
		return "field_invalid", where + " does not match " + se.Schema.Pattern
	case "format":
		return "field_invalid", where + " is not a " + se.Schema.Format
	case "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "maxProperties":
		return "field_invalid", where + " " + bound(se)
	case "enum":
		return "field_invalid", where + " must be one of " + fmt.Sprint(se.Schema.Enum)
	default:
		return "field_invalid", where + " violates " + se.SchemaField
	}
}

// bound says which bound was not kept.
func bound(se *openapi3.SchemaError) string {
	s := se.Schema
	switch se.SchemaField {
	case "minLength":
		if s.MinLength == 1 {
			return "is empty"
		}
		return fmt.Sprintf("is shorter than %d characters", s.MinLength)
	case "maxLength":
		return fmt.Sprintf("is longer than %d characters", *s.MaxLength)
	case "minimum":
		return fmt.Sprintf("is less than %v", *s.Min)
	case "maximum":
		return fmt.Sprintf("is more than %v", *s.Max)
	case "minItems":
		return fmt.Sprintf("has fewer than %d entries", s.MinItems)
	case "maxItems":
		return fmt.Sprintf("has more than %d entries", *s.MaxItems)
	default:
		return fmt.Sprintf("has more than %d entries", *s.MaxProps)
	}
}

func bodySchema(r *routers.Route) *openapi3.Schema {
	if body := r.Operation.RequestBody; body != nil {
		if json := body.Value.Content["application/json"]; json != nil {
			return json.Schema.Value
		}
	}
	return nil
}

// known is a JSON pointer in which names that only the caller knows, such as the keys of
// tags, are an asterisk.
func known(schema *openapi3.Schema, path []string) string {
	var b strings.Builder
	for _, segment := range path {
		shown := "*"
		var next *openapi3.SchemaRef
		if schema != nil {
			_, err := strconv.ParseUint(segment, 10, 31)
			switch property := schema.Properties[segment]; {
			case property != nil:
				shown, next = segment, property
			case schema.Items != nil && err == nil:
				shown, next = segment, schema.Items
			default:
				next = schema.AdditionalProperties.Schema
			}
		}
		schema = nil
		if next != nil {
			schema = next.Value
		}
		b.WriteString("/" + shown)
	}
	return b.String()
}

// isTooLarge reports a body over its limit.
func isTooLarge(err error) (*reeve.Error, bool) {
	tooBig, ok := errors.AsType[*http.MaxBytesError](err)
	if !ok {
		return nil, false
	}
	return reeve.Errorf(reeve.TooLarge, "body_too_large", "the body is larger than %d bytes", tooBig.Limit), true
}

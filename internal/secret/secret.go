// Package secret holds values that must never be printed.
package secret

import "log/slog"

// redacted is what every formatter sees in place of the value.
const redacted = "(sensitive)"

// String is a secret that survives no formatting verb, no JSON encoder and no structured logger.
// Only Reveal gives the value.
type String struct{ value string }

// New wraps value.
func New(value string) String { return String{value} }

// Reveal returns the secret itself. Call it at the last moment, where the value is used.
func (s String) Reveal() string { return s.value }

// IsSet reports whether the secret is not empty.
func (s String) IsSet() bool { return s.value != "" }

// String implements fmt.Stringer without giving the value away.
func (String) String() string { return redacted }

// GoString implements fmt.GoStringer, so that %#v gives nothing away either.
func (String) GoString() string { return redacted }

// LogValue implements slog.LogValuer.
func (String) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText keeps the value out of JSON and other text encodings.
func (String) MarshalText() ([]byte, error) { return []byte(redacted), nil }

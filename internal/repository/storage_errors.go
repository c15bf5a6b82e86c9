package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azidentity"
	"github.com/kopia/kopia/repo/blob"
	"github.com/minio/minio-go/v7"
	"github.com/studio-b12/gowebdav"
	"gopkg.in/kothar/go-backblaze.v0"
)

// storageOutcomes are what Kopia decides by.
var storageOutcomes = []error{
	blob.ErrBlobNotFound, blob.ErrInvalidRange, blob.ErrBlobAlreadyExists, blob.ErrSetTimeUnsupported,
	blob.ErrUnsupportedPutBlobOption,
}

// failed says what the failure of an operation means.
func failed(ctx context.Context, operation string, id blob.ID, err error) error {
	if err == nil {
		return nil
	}
	what := strings.TrimSpace(operation + " " + string(id))
	if ctx.Err() != nil {
		if cause := context.Cause(ctx); isOutcome(cause) { // says more
			return fmt.Errorf("%s: %w", what, cause)
		}
		return fmt.Errorf("%s: %w", what, ctx.Err())
	}
	if isOutcome(err) { // of our own making
		return fmt.Errorf("%s: %w", what, err)
	}
	for _, outcome := range storageOutcomes {
		if errors.Is(err, outcome) {
			return fmt.Errorf("%s: %w", what, reduced{outcome, reason(err), 0})
		}
	}
	return fmt.Errorf("%s: %w", what, reduced{meaning(err), reason(err), statusOf(err)})
}

// reduced is an outcome with the reason in words. It wraps nothing else.
type reduced struct {
	outcome error
	reason  string
	status  int // of HTTP; zero: none
}

// isAnswer reports whether an error is what a service answered, and not that it didn't.
func isAnswer(err error) bool {
	var r reduced
	return errors.As(err, &r) && r.status != 0
}

func (e reduced) Error() string {
	switch text := e.outcome.Error(); {
	case e.reason == "", e.reason == text:
		return text
	case strings.HasPrefix(e.reason, text):
		return e.reason
	default:
		return text + ": " + e.reason
	}
}

func (e reduced) Unwrap() error { return e.outcome }

// meaning is the outcome that an error of a storage service is. All that may pass counts as a service that can't be
// reached.
func meaning(err error) error {
	var login *azidentity.AuthenticationFailedError
	switch status := statusOf(err); {
	case errors.As(err, &login) && login.RawResponse != nil && login.RawResponse.StatusCode < http.StatusInternalServerError:
		return ErrRefused
	case status == http.StatusUnauthorized, status == http.StatusForbidden,
		errors.Is(err, blob.ErrInvalidCredentials), errors.Is(err, fs.ErrPermission):
		return ErrRefused
	case status == http.StatusInsufficientStorage:
		return ErrFull
	case status == http.StatusNotFound:
		return ErrNoRepository
	case status == http.StatusRequestTimeout, status == http.StatusConflict, status == http.StatusLocked, status == http.StatusTooEarly,
		status == http.StatusTooManyRequests, isPassing(err):
		return ErrUnreachable
	case status >= 400 && status < 500:
		return ErrRefused
	default:
		return ErrUnreachable
	}
}

// isPassing reports whether an error is one of those that S3 gives with the status of a request that is wrong, although
// the same request may succeed (Amazon S3 API reference, list of error codes).
func isPassing(err error) bool {
	var answer minio.ErrorResponse
	return errors.As(err, &answer) && (answer.Code == "RequestTimeout" || answer.Code == "IncompleteBody" || answer.Code == "BadDigest")
}

// statusOf is the HTTP status that an error of a storage service has; zero: none.
func statusOf(err error) int {
	var s3Error minio.ErrorResponse
	var azureError *azcore.ResponseError
	var b2Error *backblaze.B2Error
	var davError gowebdav.StatusError
	switch {
	case errors.As(err, &s3Error):
		return s3Error.StatusCode
	case errors.As(err, &azureError):
		return azureError.StatusCode
	case errors.As(err, &b2Error):
		return b2Error.Status
	case errors.As(err, &davError):
		return davError.Status
	default:
		return 0
	}
}

// reason is the innermost cause of an error, in words that name no request.
func reason(err error) string {
	var s3Error minio.ErrorResponse
	if errors.As(err, &s3Error) {
		return strings.TrimSuffix(strings.TrimSpace(s3Error.Code+": "+s3Error.Message), ".")
	}
	var azureError *azcore.ResponseError
	if errors.As(err, &azureError) {
		return fmt.Sprintf("%s (status %d)", azureError.ErrorCode, azureError.StatusCode)
	}
	var login *azidentity.AuthenticationFailedError
	if errors.As(err, &login) && login.RawResponse != nil { // its text is the answer in full
		return fmt.Sprintf("the login of the service principal failed (status %d)", login.RawResponse.StatusCode)
	}
	for {
		var request *url.Error // its text has the query, which is a secret on Azure
		var network *net.OpError
		var path *os.PathError
		switch {
		case errors.As(err, &request):
			err = request.Err
		case errors.As(err, &network):
			return network.Error()
		case errors.As(err, &path):
			err = path.Err
		case errors.Unwrap(err) != nil:
			err = errors.Unwrap(err)
		default:
			return err.Error()
		}
	}
}

package vsphere

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// maxNVRAM bounds the file with the firmware's variables, in bytes. ESXi writes some 270 KiB for EFI.
const maxNVRAM = 16 << 20

// nvramFile is the datastore path of the firmware's variables: as the server lists it, else beside the
// vmx file under the name that the configuration has, else under the vmx file's name.
func nvramFile(props *mo.VirtualMachine, config *types.VirtualMachineConfigInfo) string {
	if props.LayoutEx != nil {
		for _, f := range props.LayoutEx.File {
			if f.Type == string(types.VirtualMachineFileLayoutExFileTypeNvram) {
				return f.Name
			}
		}
	}
	vmx := config.Files.VmPathName
	if props.Config != nil && props.Config.Files.VmPathName != "" {
		vmx = props.Config.Files.VmPathName
	}
	datastore, file := splitPath(vmx)
	name := optionValue(config.ExtraConfig, "nvram")
	if name == "" || path.IsAbs(name) {
		name = strings.TrimSuffix(path.Base(file), path.Ext(file)) + ".nvram"
	}
	return joinPath(datastore, path.Join(path.Dir(file), name))
}

// folderURL is the address of a datastore's file over HTTP. datacenter is an inventory path.
func (c *Client) folderURL(datacenter, file string) *url.URL {
	datastore, name := splitPath(file)
	u := *c.vim.URL()
	u.User = nil
	u.Path = "/folder/" + name
	if !c.vim.IsVC() {
		datacenter = "ha-datacenter"
	}
	u.RawQuery = url.Values{"dcPath": {strings.TrimPrefix(datacenter, "/")}, "dsName": {datastore}}.Encode()
	return &u
}

// errNoFile: the file isn't there.
var errNoFile = errors.New("there is no such file")

// readNVRAM fetches the firmware's variables. Errors: as readFile.
func (c *Client) readNVRAM(ctx context.Context, datacenter, file string) ([]byte, error) {
	return c.readFile(ctx, datacenter, file, maxNVRAM)
}

// readFile fetches a small file, of limit bytes at most. Errors: errNoFile; hypervisor.ErrLost when the server
// could not be reached or was in trouble, again and again.
func (c *Client) readFile(ctx context.Context, datacenter, file string, limit int64) ([]byte, error) {
	for attempt := 1; ; attempt++ {
		data, err := c.fetchFile(ctx, datacenter, file, limit)
		if !errors.Is(err, hypervisor.ErrLost) || attempt == readAttempts || pause(ctx, backoff(attempt)) != nil {
			return data, err
		}
	}
}

func (c *Client) fetchFile(ctx context.Context, datacenter, file string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.folderURL(datacenter, file).String(), nil)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	res, err := c.vim.Client.Client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, transferError(ctx, err))
	}
	defer func() { _ = res.Body.Close() }()
	switch {
	case res.StatusCode == http.StatusOK && !isFile(res, req.URL.Path):
		return nil, fmt.Errorf("read %s: %w: the server sent something else", file, hypervisor.ErrLost)
	case res.StatusCode == http.StatusOK:
	case res.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("read %s: %w", file, errNoFile)
	case res.StatusCode >= http.StatusInternalServerError:
		return nil, fmt.Errorf("read %s: %w", file, statusError(res))
	case res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("read %s: %w", file, fileError(res))
	default:
		return nil, fmt.Errorf("read %s: the server answered %s", file, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", file, transferError(ctx, err))
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("read %s: it is larger than %d bytes", file, limit)
	case res.ContentLength >= 0 && int64(len(data)) != res.ContentLength:
		return nil, fmt.Errorf("read %s: %w", file, hypervisor.ErrLost)
	}
	return data, nil
}

// isFile reports whether an answer is a file that was asked for, which ends where it should: no page to log in, to which something
// before the server sends those whom it doesn't know, and nothing that ends where the connection does.
func isFile(res *http.Response, path string) bool {
	ends := res.ContentLength >= 0 || res.ProtoMajor > 1 || len(res.TransferEncoding) > 0 || res.Uncompressed
	return ends && res.Request.URL.Path == path && !strings.HasPrefix(res.Header.Get("Content-Type"), "text/html")
}

// nvramTimeout is how long writing the firmware's variables may take.
const nvramTimeout = time.Minute

// writeNVRAM replaces the firmware's variables of a VM that is powered off. Once begun it isn't cut when
// ctx ends: what a server makes of a request whose client has gone, and when, nobody would know, and the
// file might come after the VM was removed. Where that is so nevertheless, the error wraps errUnknownEnd.
func (c *Client) writeNVRAM(ctx context.Context, datacenter, file string, data []byte) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("write %s: %w", file, context.Cause(ctx))
	}
	callCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), nvramTimeout)
	defer cancel()
	err := c.putNVRAM(callCtx, datacenter, file, data)
	switch {
	case err == nil:
		return nil
	case callCtx.Err() != nil, errors.Is(err, hypervisor.ErrLost):
		return fmt.Errorf("write %s: %w: %w", file, errUnknownEnd, err)
	}
	return fmt.Errorf("write %s: %w", file, err)
}

func (c *Client) putNVRAM(ctx context.Context, datacenter, file string, data []byte) error {
	target := c.folderURL(datacenter, file).String()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, target, bytes.NewReader(data))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := c.vim.Client.Client.Do(req)
	if err != nil {
		return transferError(ctx, err)
	}
	defer func() { _ = res.Body.Close() }()
	switch res.StatusCode {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return nil
	case http.StatusBadGateway, http.StatusGatewayTimeout: // a proxy's word, not the server's
		return statusError(res)
	case http.StatusForbidden:
		return fileError(res)
	}
	return fmt.Errorf("the server answered %s", res.Status)
}

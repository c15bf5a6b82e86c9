package hypervisortest

import (
	"bytes"
	"context"
	"fmt"
	pictures "image"
	"image/png"

	"github.com/terraform-vm/terraform-provider-vm/internal/hypervisor"
)

// Screenshot implements hypervisor.Screenshooter.
func (f *Fake) Screenshot(ctx context.Context, id hypervisor.VMID) ([]byte, error) {
	if err := f.at(ctx, BeforeScreenshot); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	v, err := f.vm(id)
	if err != nil {
		return nil, err
	}
	if v.PowerState != hypervisor.PoweredOn {
		return nil, fmt.Errorf("screenshot of %s: it is %s", v.Name, v.PowerState)
	}
	var b bytes.Buffer
	if err := png.Encode(&b, pictures.NewGray(pictures.Rect(0, 0, 8, 8))); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

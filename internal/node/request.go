package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/volume"
)

// secretKey is the key of a secret that holds mount options, separated by commas.
const secretKey = "mountOptions"

// publish is a valid NodePublishVolumeRequest.
type publish struct {
	source  string // what mount(8) mounts
	target  string
	options []string
	hidden  []string // those of the options that nobody may read
	single  bool     // whether this target is to be the only one of the node
}

// parsePublish reads a request, all of it but the target path. It returns every
// fault, in none of which is what the secrets say.
func parsePublish(request *csi.NodePublishVolumeRequest) (publish, []string) {
	var faults []string
	if request.GetVolumeId() == "" {
		faults = append(faults, "volume_id: required")
	}
	path := field.NewPath("volume_context")
	dir, errs := volume.DirectoryFromAttributes(request.GetVolumeContext(), path)
	written, optionErrs := volume.MountOptionsFromAttributes(request.GetVolumeContext(), path)
	for _, err := range append(errs, optionErrs...) {
		faults = append(faults, oneLine(err))
	}
	p := publish{single: request.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER}
	options, err := capabilityOptions(request.GetVolumeCapability())
	if err != nil {
		faults = append(faults, oneLine(err))
	}
	if value, found := request.GetSecrets()[secretKey]; found {
		if p.hidden, err = volume.ParseMountOptions(value); err != nil {
			faults = append(faults, fmt.Sprintf("secrets[%s]: %v", secretKey, err))
		}
	}
	// The last one counts: a secret may add to what the volume says, and widen nothing.
	p.options = slices.Concat(p.hidden, options, written)
	// The access mode says nothing of this: kubelet passes only a volume's first one.
	if request.GetReadonly() {
		p.options = append(p.options, "ro")
	}
	if len(faults) == 0 {
		p.source = dir.Source()
	}
	return p, faults
}

// capabilityOptions returns the mount flags of a capability.
func capabilityOptions(capability *csi.VolumeCapability) ([]string, error) {
	switch {
	case capability == nil:
		return nil, errors.New("volume_capability: required")
	case capability.GetBlock() != nil:
		return nil, errors.New("volume_capability: block volumes are not supported, only file systems")
	}
	var faults []error
	options := capability.GetMount().GetMountFlags()
	if n := len(strings.Join(options, ",")); n > volume.MaxMountOptions {
		return nil, fmt.Errorf("mount options: %d bytes are more than mount(2) takes, %d", n, volume.MaxMountOptions)
	}
	for _, option := range options {
		if err := volume.CheckMountOption(option); err != nil {
			faults = append(faults, fmt.Errorf("mount option %q: %w", option, err))
		}
	}
	return options, errors.Join(faults...)
}

// minHidden is the length from which an option, or its bare value, is hidden. Shorter
// ones, such as ro or the 4 of nfsvers=4, are in every text and tell nothing.
const minHidden = 4

// hide takes out of a message what nobody may read: mount(8) may say which of its
// options it does not like.
func (p publish) hide(message string) string {
	var secrets []string
	for _, option := range p.hidden {
		_, value, _ := strings.Cut(option, "=")
		secrets = append(secrets, option, value)
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < minHidden })
	// Of those that begin alike the longest first. What is put in is not looked at again.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, secret := range slices.Compact(secrets) {
		pairs = append(pairs, secret, "[from the secret]")
	}
	return strings.NewReplacer(pairs...).Replace(message)
}

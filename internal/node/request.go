package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/fs"
	"sharevol.dev/sharevol/internal/mount"
	"sharevol.dev/sharevol/internal/volume"
)

// secretKey is the key of a secret that holds mount options, separated by commas.
const secretKey = "mountOptions"

// publish is a valid NodePublishVolumeRequest.
type publish struct {
	spec         mount.Spec
	target       string
	secret       []string // those of the options that came from a secret
	singleWriter bool     // whether this target is to be the only one of the node
	stale        error    // what a stale mount of the volume answers
}

// parsePublish reads a request, all of it but the target path. It returns every
// fault; none shows what is in the secrets.
func parsePublish(request *csi.NodePublishVolumeRequest) (publish, []string) {
	var faults []string
	if request.GetVolumeId() == "" {
		faults = append(faults, "volume_id: required")
	}
	path := field.NewPath("volume_context")
	dir, errs := volume.DirectoryFromAttributes(request.GetVolumeContext(), path, fs.Types.Share)
	rules := fs.Types.Options(dir.Share)
	written, optionErrs := volume.MountOptionsFromAttributes(request.GetVolumeContext(), path, rules.Check)
	for _, err := range append(errs, optionErrs...) {
		faults = append(faults, oneLine(err))
	}
	p := publish{singleWriter: request.GetVolumeCapability().GetAccessMode().GetMode() == csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER}
	options, err := capabilityOptions(request.GetVolumeCapability(), rules)
	if err != nil {
		faults = append(faults, oneLine(err))
	}
	if value, found := request.GetSecrets()[secretKey]; found {
		if p.secret, err = rules.ParseSecret(value); err != nil {
			faults = append(faults, fmt.Sprintf("secrets[%s]: %v", secretKey, err))
		}
	}
	// The last one counts: a secret may add to what the volume says, and widen nothing.
	options = slices.Concat(p.secret, options, written)
	// The access mode does not tell: kubelet passes only a volume's first one.
	if request.GetReadonly() {
		options = append(options, "ro")
	}
	if len(faults) > 0 {
		return p, faults
	}
	of, err := fs.Types.Lookup(dir.Share.Type)
	if err != nil {
		return p, []string{err.Error()}
	}
	p.spec, p.stale = of.Mount(dir.Share, dir.SubDir, options), of.Stale
	return p, nil
}

// capabilityOptions returns the mount flags of a capability.
func capabilityOptions(capability *csi.VolumeCapability, rules fs.OptionRules) ([]string, error) {
	switch {
	case capability == nil:
		return nil, errors.New("volume_capability: required")
	case capability.GetBlock() != nil:
		return nil, errors.New("volume_capability: block volumes are not supported, only file systems")
	}
	var faults []error
	options := capability.GetMount().GetMountFlags()
	if n := len(strings.Join(options, ",")); n > fs.MaxMountOptions {
		return nil, fmt.Errorf("mount options: %d bytes are more than mount(2) takes, %d", n, fs.MaxMountOptions)
	}
	for _, option := range options {
		if err := rules.Check(option); err != nil {
			faults = append(faults, fmt.Errorf("mount option %q: %w", option, err))
		}
	}
	return options, errors.Join(faults...)
}

// minRedacted is the length from which an option, or its bare value, is redacted. Shorter
// ones, such as ro or the 4 of nfsvers=4, are in every text and tell nothing.
const minRedacted = 4

// redact takes the secret's options out of a message: mount(8) may repeat the one that it
// does not like.
func (p publish) redact(message string) string {
	var secrets []string
	for _, option := range p.secret {
		_, value, _ := strings.Cut(option, "=")
		secrets = append(secrets, option, value)
	}
	secrets = slices.DeleteFunc(secrets, func(s string) bool { return len(s) < minRedacted })
	// Of those that begin alike the longest first. What is put in is not looked at again.
	slices.SortFunc(secrets, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, secret := range slices.Compact(secrets) {
		pairs = append(pairs, secret, "[from the secret]")
	}
	return strings.NewReplacer(pairs...).Replace(message)
}

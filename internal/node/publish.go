package node

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"sharevol.dev/sharevol/internal/volume"
)

// publish is a valid NodePublishVolumeRequest.
type publish struct {
	source  string // what mount(8) mounts
	target  string
	options []string
}

// parsePublish reads a request. Its error names every fault.
func parsePublish(request *csi.NodePublishVolumeRequest) (publish, error) {
	var faults []error
	if request.GetVolumeId() == "" {
		faults = append(faults, errors.New("volume_id: required"))
	}
	if err := checkTarget(request.GetTargetPath()); err != nil {
		faults = append(faults, err)
	}
	dir, errs := volume.DirectoryFromAttributes(request.GetVolumeContext(), field.NewPath("volume_context"))
	for _, err := range errs {
		faults = append(faults, err)
	}
	options, err := mountOptions(request)
	if err != nil {
		faults = append(faults, err)
	}
	if len(faults) > 0 {
		return publish{}, errors.New(joinFaults(faults))
	}
	return publish{source: dir.Source(), target: request.GetTargetPath(), options: options}, nil
}

// mountOptions returns the capability's mount flags, with ro where the request
// asks for it. The access mode does not: kubelet passes only a volume's first one.
func mountOptions(request *csi.NodePublishVolumeRequest) ([]string, error) {
	capability := request.GetVolumeCapability()
	switch {
	case capability == nil:
		return nil, errors.New("volume_capability: required")
	case capability.GetBlock() != nil:
		return nil, errors.New("volume_capability: block volumes are not supported, only file systems")
	}
	var faults []error
	options := append([]string(nil), capability.GetMount().GetMountFlags()...)
	for _, option := range options {
		if err := volume.CheckMountOption(option); err != nil {
			faults = append(faults, fmt.Errorf("mount option %q: %w", option, err))
		}
	}
	more, errs := volume.MountOptionsFromAttributes(request.GetVolumeContext(), field.NewPath("volume_context"))
	for _, err := range errs {
		faults = append(faults, err)
	}
	options = append(options, more...)
	if request.GetReadonly() {
		options = append(options, "ro")
	}
	return options, errors.Join(faults...)
}

func checkTarget(target string) error {
	switch {
	case target == "":
		return errors.New("target_path: required")
	case !filepath.IsAbs(target) || filepath.Clean(target) != target || target == "/":
		return fmt.Errorf("target_path: %q must be a clean absolute path below /", target)
	}
	return nil
}

func joinFaults(faults []error) string {
	messages := make([]string, 0, len(faults))
	for _, fault := range faults {
		messages = append(messages, strings.ReplaceAll(fault.Error(), "\n", "; "))
	}
	return strings.Join(messages, "; ")
}

package registration

import (
	"context"
	"fmt"

	"k8s.io/klog/v2"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// service answers kubelet's two calls.
type service struct {
	registerapi.UnsafeRegistrationServer
	options Options
	refused chan<- error // takes one
}

var _ registerapi.RegistrationServer = (*service)(nil)

// GetInfo returns what registers here.
func (s *service) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              s.options.Driver,
		Endpoint:          s.options.Endpoint,
		SupportedVersions: []string{csiVersion},
	}, nil
}

// NotifyRegistrationStatus takes kubelet's answer to that.
func (s *service) NotifyRegistrationStatus(_ context.Context, status *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if status.GetPluginRegistered() {
		klog.V(2).InfoS("kubelet registered the driver", "driver", s.options.Driver, "endpoint", s.options.Endpoint)
		return &registerapi.RegistrationStatusResponse{}, nil
	}
	select {
	case s.refused <- fmt.Errorf("kubelet did not register the driver %s at %s: %s", s.options.Driver, s.options.Endpoint, status.GetError()):
	default: // it ends already, for an earlier refusal
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}

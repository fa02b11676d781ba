package machine

import (
	"context"
	"errors"
	"fmt"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"sharevol.dev/sharevol/internal/testbed/guest"
)

// register does what kubelet does when it finds a socket in its folder plugins_registry.
func register(ctx context.Context, socket string) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	err = guest.WaitFor(ctx, "the registration socket", poll, func(context.Context) (bool, string, error) {
		_, err := os.Lstat(socket)
		return err == nil, fmt.Sprint(err), nil
	})
	if err != nil {
		return err
	}
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	client := registration.NewRegistrationClient(conn)
	info, err := client.GetInfo(ctx, &registration.InfoRequest{})
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if info.Name != driver {
		return fmt.Errorf("register: the driver's name is %q", info.Name)
	}
	_, err = client.NotifyRegistrationStatus(ctx, &registration.RegistrationStatus{PluginRegistered: true})
	return err
}

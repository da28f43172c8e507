// Command authconfig answers Envoy's ext_authz according to an AuthConfig. It uses Authorino's own code, without
// Kubernetes.
//
//	authconfig -config authconfig.yaml -listen 127.0.0.1:50052
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"time"

	envoy "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-logr/logr"
	"github.com/kuadrant/authorino/api/v1beta3"
	"github.com/kuadrant/authorino/controllers"
	"github.com/kuadrant/authorino/pkg/evaluators"
	"github.com/kuadrant/authorino/pkg/index"
	"github.com/kuadrant/authorino/pkg/service"
	"google.golang.org/grpc"
	"k8s.io/apimachinery/pkg/runtime"
	controllerruntime "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"
)

func main() {
	config := flag.String("config", "authconfig.yaml", "file with the AuthConfig")
	listen := flag.String("listen", "127.0.0.1:50052", "address to serve gRPC at")
	flag.Parse()
	if err := run(context.Background(), *config, *listen); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, config, listen string) error {
	content, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	authConfig := &v1beta3.AuthConfig{}
	if err := yaml.UnmarshalStrict(content, authConfig); err != nil {
		return fmt.Errorf("%s: %w", config, err)
	}
	scheme := runtime.NewScheme()
	if err := v1beta3.AddToScheme(scheme); err != nil {
		return err
	}
	evaluators.EvaluatorCacheSize = 1 // in MiB; Authorino's default
	hosts, status := index.NewIndex(), controllers.NewStatusReportMap()
	reconciler := &controllers.AuthConfigReconciler{
		Client: fake.NewClientBuilder().WithScheme(scheme).WithObjects(authConfig).Build(),
		Logger: logr.Discard(), Scheme: scheme, Index: hosts, StatusReport: status,
	}
	name := client.ObjectKeyFromObject(authConfig)
	if _, err := reconciler.Reconcile(ctx, controllerruntime.Request{NamespacedName: name}); err != nil {
		return fmt.Errorf("%s: %w", config, err)
	}
	if report, _ := status.Get(name.String()); report.Reason != v1beta3.StatusReasonReconciled {
		return fmt.Errorf("%s: %s: %s", config, report.Reason, report.Message)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	envoy.RegisterAuthorizationServer(server, service.NewAuthService(hosts, 10*time.Second, 8<<10))
	return server.Serve(listener)
}

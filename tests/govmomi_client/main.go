// SPDX-License-Identifier: Apache-2.0

// Command govmomi_client talks to the project's simulated vCenter with govmomi's own packages, and says what it found.
//
// It is a second client that nobody here wrote: Go decodes by type, so it refuses or loses what pyVmomi forgives. It
// takes address, login and CA file as flags, prints one JSON object, and exits 1 with a sentence at the first surprise.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/eam"
	eamobject "github.com/vmware/govmomi/eam/object"
	"github.com/vmware/govmomi/event"
	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/property"
	"github.com/vmware/govmomi/session"
	"github.com/vmware/govmomi/task"
	"github.com/vmware/govmomi/view"
	"github.com/vmware/govmomi/vim25"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type found struct {
	About       string            `json:"about"`
	User        string            `json:"user"`
	Hosts       []string          `json:"hosts"`
	Clusters    []string          `json:"clusters"`
	Parents     map[string]string `json:"parents"`
	MemoryBytes int64             `json:"memory_bytes"`
	Changes     []string          `json:"changes"`
	Events      []string          `json:"events"`
	Agencies    int               `json:"agencies"`
	TaskError   string            `json:"task_error"`
	BadLogin    string            `json:"bad_login"`
	AfterLogout string            `json:"after_logout"`
}

func connect(ctx context.Context, address string, user *url.Userinfo, ca string) (*govmomi.Client, error) {
	u, err := soap.ParseURL(address)
	if err != nil {
		return nil, err
	}
	transport := soap.NewClient(u, false)
	if err = transport.SetRootCAs(ca); err != nil {
		return nil, err
	}
	vim, err := vim25.NewClient(ctx, transport)
	if err != nil {
		return nil, err
	}
	client := &govmomi.Client{Client: vim, SessionManager: session.NewManager(vim)}
	return client, client.Login(ctx, user)
}

func faultName(err error) string {
	var name string
	fault.In(err, func(f types.BaseMethodFault, _ string, _ []types.LocalizableMessage) bool {
		name = fmt.Sprintf("%T", f)
		return true
	})
	if name == "" && soap.IsSoapFault(err) {
		name = fmt.Sprintf("%T", soap.ToSoapFault(err).VimFault())
	}
	return name
}

func explore(ctx context.Context, address, user, password, ca string) (*found, error) {
	var out found

	_, err := connect(ctx, address, url.UserPassword(user, "wrong"), ca)
	if err == nil {
		return nil, errors.New("a wrong password was accepted")
	}
	out.BadLogin = faultName(err)

	client, err := connect(ctx, address, url.UserPassword(user, password), ca)
	if err != nil {
		return nil, fmt.Errorf("login: %w", err)
	}
	out.About = client.ServiceContent.About.FullName
	us, err := client.SessionManager.UserSession(ctx)
	if err != nil || us == nil {
		return nil, fmt.Errorf("user session: %v %w", us, err)
	}
	out.User = us.UserName

	finder := find.NewFinder(client.Client)
	clusters, err := finder.ClusterComputeResourceList(ctx, "/...")
	if err != nil {
		return nil, fmt.Errorf("finder: %w", err)
	}
	for _, cluster := range clusters {
		out.Clusters = append(out.Clusters, cluster.InventoryPath)
	}

	manager := view.NewManager(client.Client)
	hostView, err := manager.CreateContainerView(ctx, client.ServiceContent.RootFolder, []string{"HostSystem"}, true)
	if err != nil {
		return nil, fmt.Errorf("container view: %w", err)
	}
	var hosts []mo.HostSystem
	paths := []string{"name", "parent", "runtime", "recentTask", "summary.hardware.memorySize", "config.product"}
	if err = hostView.Retrieve(ctx, []string{"HostSystem"}, paths, &hosts); err != nil {
		return nil, fmt.Errorf("retrieve: %w", err)
	}
	out.Parents = map[string]string{}
	for _, host := range hosts {
		out.Hosts = append(out.Hosts, host.Name)
		if host.Parent == nil {
			return nil, fmt.Errorf("host %s has no parent", host.Name)
		}
		out.Parents[host.Name] = host.Parent.Type
		if host.Runtime.PowerState != types.HostSystemPowerStatePoweredOn {
			return nil, fmt.Errorf("host %s is %q", host.Name, host.Runtime.PowerState)
		}
		out.MemoryBytes = host.Summary.Hardware.MemorySize
	}

	if out.Changes, err = follow(ctx, client, hosts[0].Self); err != nil {
		return nil, fmt.Errorf("follow: %w", err)
	}
	if out.Events, err = events(ctx, client); err != nil {
		return nil, fmt.Errorf("events: %w", err)
	}

	// A task that fails: its error must arrive as the fault that it is.
	host := object.NewHostSystem(client.Client, hosts[0].Self)
	job, err := host.ExitMaintenanceMode(ctx, 0)
	if err == nil {
		err = job.Wait(ctx)
	}
	if err == nil {
		if job, err = host.ExitMaintenanceMode(ctx, 0); err == nil {
			err = job.Wait(ctx)
		}
	}
	var failed task.Error
	if errors.As(err, &failed) {
		out.TaskError = fmt.Sprintf("%T", failed.Fault())
	} else {
		out.TaskError = faultName(err)
	}

	manage := eamobject.NewEsxAgentManager(eam.NewClient(client.Client), eam.EsxAgentManager)
	agencies, err := manage.Agencies(ctx)
	if err != nil {
		return nil, fmt.Errorf("agencies: %w", err)
	}
	out.Agencies = len(agencies)

	if err = client.Logout(ctx); err != nil {
		return nil, fmt.Errorf("logout: %w", err)
	}
	_, err = manager.CreateListView(ctx, nil)
	out.AfterLogout = faultName(err)
	return &out, nil
}

// follow puts a host into maintenance and names the property changes until it is there.
func follow(ctx context.Context, client *govmomi.Client, host types.ManagedObjectReference) ([]string, error) {
	started := make(chan error, 1)
	var changes []string
	filter := new(property.WaitFilter).Add(host, "HostSystem", []string{"runtime.inMaintenanceMode", "recentTask"})
	collector := property.DefaultCollector(client.Client)
	first := true
	err := property.WaitForUpdatesEx(ctx, collector, filter, func(updates []types.ObjectUpdate) bool {
		for _, update := range updates {
			for _, change := range update.ChangeSet {
				changes = append(changes, fmt.Sprintf("%s %s=%T", update.Kind, change.Name, change.Val))
				if change.Name == "runtime.inMaintenanceMode" && change.Val.(bool) {
					return true
				}
			}
		}
		if first {
			first = false
			go func() {
				job, err := object.NewHostSystem(client.Client, host).EnterMaintenanceMode(ctx, 0, true, nil)
				if err == nil {
					err = job.Wait(ctx)
				}
				started <- err
			}()
		}
		return false
	})
	if err != nil {
		return nil, err
	}
	return changes, <-started
}

func events(ctx context.Context, client *govmomi.Client) ([]string, error) {
	manager := event.NewManager(client.Client)
	posted := &types.EventEx{EventTypeId: "org.example.test", Message: "hello", Severity: "info"}
	if err := manager.PostEvent(ctx, posted); err != nil {
		return nil, err
	}
	all, err := manager.QueryEvents(ctx, types.EventFilterSpec{})
	if err != nil {
		return nil, err
	}
	var kinds []string
	for _, one := range all {
		if one.GetEvent().CreatedTime.IsZero() {
			return nil, fmt.Errorf("event %d has no time", one.GetEvent().Key)
		}
		kinds = append(kinds, fmt.Sprintf("%T", one))
	}
	collector, err := manager.CreateCollectorForEvents(ctx, types.EventFilterSpec{EventTypeId: []string{"org.example.test"}})
	if err != nil {
		return nil, err
	}
	defer collector.Destroy(ctx)
	page, err := collector.LatestPage(ctx)
	if err != nil {
		return nil, err
	}
	if len(page) != 1 {
		return nil, fmt.Errorf("the latest page has %d events, not 1", len(page))
	}
	return kinds, nil
}

func main() {
	address := flag.String("url", "", "https://host:port/sdk")
	user := flag.String("user", "", "login name")
	ca := flag.String("ca", "", "CA file")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	// The password comes by the environment: a command line can be read by everybody on the machine.
	out, err := explore(ctx, *address, *user, os.Getenv("SIMULATOR_PASSWORD"), *ca)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	_ = json.NewEncoder(os.Stdout).Encode(out)
}

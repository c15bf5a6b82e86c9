package lab

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// A UserSpec describes a user beside the administrator, who may do everything.
type UserSpec struct {
	Name, Password string
	// Privileges are what the user may do, on the whole inventory.
	Privileges []string
}

// users are the users beside the administrator, with their passwords. The zero value is ready to use.
type users struct {
	mu        sync.Mutex
	passwords map[string]string
}

// AddUser adds a user, or gives one that exists another password and other privileges on the whole inventory.
// Errors: there is no such privilege.
func (l *Lab) AddUser(u UserSpec) error {
	if u.Name == "" || u.Name == userName {
		return fmt.Errorf("add user %q: the name is empty, or the administrator's", u.Name)
	}
	l.users.mu.Lock()
	if l.users.passwords == nil {
		l.users.passwords = map[string]string{}
	}
	l.users.passwords[u.Name] = u.Password
	l.users.mu.Unlock()
	return l.Grant(u.Name, "/", u.Privileges...)
}

// Grant replaces what a user may do on the object with an inventory path, and on everything below it that the
// user has no privileges of its own on. "/" is the whole inventory. It takes effect at once, also for
// sessions that are under way. As every role, the user's has the privileges to see and to read; without any
// privilege it may do nothing else.
// Errors: there is no such object, or no such privilege.
func (l *Lab) Grant(user, path string, privileges ...string) error {
	ctx := l.background()
	entity := ctx.Map.Get(*l.rootFolder())
	if trimmed := strings.Trim(path, "/"); trimmed != "" {
		index := ctx.Map.SearchIndex()
		body, ok := index.FindByInventoryPath(ctx, &types.FindByInventoryPath{InventoryPath: trimmed}).(*methods.FindByInventoryPathBody)
		if !ok || body.Res == nil || body.Res.Returnval == nil {
			return fmt.Errorf("grant privileges on %s: there is no such object", path)
		}
		entity = ctx.Map.Get(*body.Res.Returnval)
	}
	manager, ok := ctx.Map.Get(*l.model.ServiceContent.AuthorizationManager).(*simulator.AuthorizationManager)
	if !ok {
		return errors.New("grant privileges: there is no authorization manager")
	}
	var err error
	ctx.WithLock(manager, func() { err = grant(ctx, manager, entity.Reference(), user, privileges) })
	if err != nil {
		return fmt.Errorf("grant privileges on %s: %w", path, err)
	}
	return nil
}

// grant gives a user a role of its own on an object. The manager is locked.
func grant(
	ctx *simulator.Context, manager *simulator.AuthorizationManager, entity types.ManagedObjectReference, user string, privileges []string,
) error {
	name := user + " on " + entity.Value
	privileges = append([]string{"System.Anonymous", "System.Read", "System.View"}, privileges...)
	var res soap.HasFault
	role := object.AuthorizationRoleList(manager.RoleList).ByName(name)
	if role == nil {
		res = manager.AddAuthorizationRole(&types.AddAuthorizationRole{Name: name, PrivIds: privileges})
	} else {
		res = manager.UpdateAuthorizationRole(&types.UpdateAuthorizationRole{RoleId: role.RoleId, NewName: name, PrivIds: privileges})
	}
	if fault := res.Fault(); fault != nil {
		return fmt.Errorf("role %q: %s", name, strings.TrimPrefix(fmt.Sprintf("%T", fault.VimFault()), "types."))
	}
	if role != nil {
		return nil
	}
	role = object.AuthorizationRoleList(manager.RoleList).ByName(name)
	permissions := slices.DeleteFunc(permissionsOn(ctx, manager, entity), func(p types.Permission) bool { return p.Principal == user })
	manager.SetEntityPermissions(&types.SetEntityPermissions{Entity: entity, Permission: append(permissions, types.Permission{
		Entity: &entity, Principal: user, RoleId: role.RoleId, Propagate: true,
	})})
	return nil
}

// permissionsOn are those that were given on an object itself. The manager is locked.
func permissionsOn(
	ctx *simulator.Context, manager *simulator.AuthorizationManager, entity types.ManagedObjectReference,
) []types.Permission {
	body, ok := manager.RetrieveEntityPermissions(ctx, &types.RetrieveEntityPermissions{Entity: entity}).(*methods.RetrieveEntityPermissionsBody)
	if !ok || body.Res == nil {
		return nil
	}
	return slices.Clone(body.Res.Returnval)
}

// rootFolder is the top of the inventory.
func (l *Lab) rootFolder() *types.ManagedObjectReference { return &l.model.ServiceContent.RootFolder }

// validLogin says whether a user has a password.
func (l *Lab) validLogin(login *types.Login) bool {
	password := l.password
	if login.UserName != userName {
		l.users.mu.Lock()
		defer l.users.mu.Unlock()
		var ok bool
		if password, ok = l.users.passwords[login.UserName]; !ok {
			return false
		}
	}
	return subtle.ConstantTimeCompare([]byte(login.Password), []byte(password)) == 1
}

// privilegesOn is what a user may do on an object: by the permission that was given on it, else by those of
// what it is in. A virtual machine is in a folder and in a resource pool, and has what either gives.
func (l *Lab) privilegesOn(ctx *simulator.Context, user string, ref types.ManagedObjectReference) map[string]bool {
	manager, ok := ctx.Map.Get(*l.model.ServiceContent.AuthorizationManager).(*simulator.AuthorizationManager)
	if !ok {
		return nil
	}
	held := map[string]bool{}
	ctx.WithLock(manager, func() { addPrivileges(ctx, manager, user, ref, true, held) })
	return held
}

func addPrivileges(
	ctx *simulator.Context, manager *simulator.AuthorizationManager, user string, ref types.ManagedObjectReference, itself bool,
	held map[string]bool,
) {
	entity, ok := ctx.Map.Get(ref).(mo.Entity)
	if !ok {
		return
	}
	found := false
	for _, p := range permissionsOn(ctx, manager, ref) {
		if p.Principal != user || p.Group || !itself && !p.Propagate {
			continue
		}
		found = true
		for _, role := range manager.RoleList {
			if role.RoleId == p.RoleId {
				for _, id := range role.Privilege {
					held[id] = true
				}
			}
		}
	}
	if found {
		return
	}
	var above []types.ManagedObjectReference
	ctx.WithLock(entity, func() {
		if parent := entity.Entity().Parent; parent != nil {
			above = append(above, *parent)
		}
		if vm, ok := entity.(*simulator.VirtualMachine); ok && vm.ResourcePool != nil {
			above = append(above, *vm.ResourcePool)
		}
	})
	for _, parent := range above {
		addPrivileges(ctx, manager, user, parent, false, held)
	}
}

// An authorizationManager tells what a user may do, where the simulator says that everybody may do everything.
type authorizationManager struct {
	*simulator.AuthorizationManager
	lab *Lab
}

// grants is what a user may do of some things, on some objects.
func (m *authorizationManager) grants(
	ctx *simulator.Context, user string, entities []types.ManagedObjectReference, ids []string,
) []types.EntityPrivilege {
	var out []types.EntityPrivilege
	for _, e := range entities {
		on := e
		if _, ok := ctx.Map.Get(e).(mo.Entity); !ok {
			on = *m.lab.rootFolder()
		}
		p := types.EntityPrivilege{Entity: e}
		for _, id := range ids {
			p.PrivAvailability = append(p.PrivAvailability, types.PrivilegeAvailability{
				PrivId: id, IsGranted: user == userName || m.lab.privilegesOn(ctx, user, on)[id],
			})
		}
		out = append(out, p)
	}
	return out
}

// HasPrivilegeOnEntities says what the user of a session may do. One may ask about one's own session.
func (m *authorizationManager) HasPrivilegeOnEntities(ctx *simulator.Context, r *types.HasPrivilegeOnEntities) soap.HasFault {
	body := new(methods.HasPrivilegeOnEntitiesBody)
	if r.SessionId != ctx.Session.Key {
		body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "sessionId"})
		return body
	}
	body.Res = &types.HasPrivilegeOnEntitiesResponse{Returnval: m.grants(ctx, ctx.Session.UserName, r.Entity, r.PrivId)}
	return body
}

// FetchUserPrivilegeOnEntities lists what a user may do.
func (m *authorizationManager) FetchUserPrivilegeOnEntities(
	ctx *simulator.Context, r *types.FetchUserPrivilegeOnEntities,
) soap.HasFault {
	if r.UserName == userName {
		return m.AuthorizationManager.FetchUserPrivilegeOnEntities(r)
	}
	res := new(types.FetchUserPrivilegeOnEntitiesResponse)
	for _, e := range r.Entities {
		held := slices.Sorted(maps.Keys(m.lab.privilegesOn(ctx, r.UserName, e)))
		res.Returnval = append(res.Returnval, types.UserPrivilegeResult{Entity: e, Privileges: held})
	}
	return &methods.FetchUserPrivilegeOnEntitiesBody{Res: res}
}

// HasUserPrivilegeOnEntities says what a user may do.
func (m *authorizationManager) HasUserPrivilegeOnEntities(
	ctx *simulator.Context, r *types.HasUserPrivilegeOnEntities,
) soap.HasFault {
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: &types.HasUserPrivilegeOnEntitiesResponse{
		Returnval: m.grants(ctx, r.UserName, r.Entities, r.PrivId),
	}}
}

package lab

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"sync"

	"github.com/vmware/govmomi/vapi/rest"
	"github.com/vmware/govmomi/vapi/tags"
	"github.com/vmware/govmomi/vim25/types"
)

// categoryPath is where tag categories are made, see the vSphere Automation API.
const categoryPath = rest.Path + "/com/vmware/cis/tagging/category"

// associationPath is where tags are attached.
const associationPath = rest.Path + "/com/vmware/cis/tagging/tag-association"

// attachTag is the privilege that attaching a tag takes.
const attachTag = "InventoryService.Tagging.AttachTag"

// installTagging puts the lab's handlers before the tag service's.
func (l *Lab) installTagging() {
	for _, pattern := range []string{"POST " + categoryPath, "PATCH " + categoryPath + "/"} {
		l.model.Service.HandleFunc(pattern, l.serveCategory)
	}
	for _, pattern := range []string{"POST " + associationPath, "POST " + associationPath + "/"} {
		l.model.Service.HandleFunc(pattern, l.serveAssociation)
	}
}

// serveCategory takes the namespace off the types that a category is for. A real server takes them with
// and without, and gives them back without.
func (l *Lab) serveCategory(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	body = bytes.ReplaceAll(body, []byte(`"urn:vim25:`), []byte(`"`))
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	handler, _ := l.tagService().(http.Handler)
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	handler.ServeHTTP(w, r)
}

// serveAssociation attaches a tag to an object, and takes it off, for those who may.
func (l *Lab) serveAssociation(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	service := l.tagService()
	handler, _ := service.(http.Handler)
	if handler == nil {
		http.NotFound(w, r)
		return
	}
	user := l.restUser(service, r)
	if action := r.URL.Query().Get("~action"); user != "" && user != userName && (action == "attach" || action == "detach") {
		var request struct {
			Object struct{ Type, ID string } `json:"object_id"`
		}
		err := json.Unmarshal(body, &request)
		on := types.ManagedObjectReference{Type: request.Object.Type, Value: request.Object.ID}
		if err != nil || l.denied(l.background(), user, []demand{{on, []string{attachTag}}}) != nil {
			http.Error(w, attachTag+" is missing", http.StatusForbidden)
			return
		}
	}
	handler.ServeHTTP(w, r)
}

// tagService is what the tag service's simulator offers beside HTTP.
type tagService interface {
	AttachTag(types.ManagedObjectReference, string) types.BaseMethodFault
	DetachTag(types.ManagedObjectReference, string) types.BaseMethodFault
	AttachedTags(types.ManagedObjectReference) ([]string, types.BaseMethodFault)
	GetTagByCategoryAndName(category, name string) (string, types.BaseMethodFault)
	GetTagCategoryAndName(tag string) (category, name string, fault types.BaseMethodFault)
}

// tagService is nil on ESX.
func (l *Lab) tagService() tagService {
	handler, _ := l.model.Service.ServeMux.Handler(&http.Request{URL: &url.URL{Path: rest.Path + "/"}})
	service, _ := handler.(tagService)
	return service
}

// inField looks into a field of the tag service's simulator, which is of a type that it doesn't export.
func inField[T any](service tagService, name string, look func(T)) {
	if locker, ok := service.(sync.Locker); ok {
		locker.Lock()
		defer locker.Unlock()
	}
	if f := reflect.Indirect(reflect.ValueOf(service)).FieldByName(name); f.IsValid() {
		if value, ok := f.Interface().(T); ok {
			look(value)
		}
	}
}

// restUser is the user of the session that a request belongs to, "" if there is none.
func (l *Lab) restUser(service tagService, r *http.Request) (user string) {
	id := r.Header.Get(restSessionHeader)
	if cookie, err := r.Cookie(restSessionHeader); id == "" && err == nil {
		id = cookie.Value
	}
	l.secrets.note(id)
	inField(service, "Session", func(all map[string]*rest.Session) {
		if session := all[id]; session != nil {
			user = session.User
		}
	})
	return user
}

// restSessionHeader carries a session's ID, as a header or a cookie.
const restSessionHeader = "vmware-api-session-id"

// categoryName is the name of a tag category.
func categoryName(service tagService, id string) string {
	name := id
	inField(service, "Category", func(all map[string]*tags.Category) {
		if c := all[id]; c != nil {
			name = c.Name
		}
	})
	return name
}

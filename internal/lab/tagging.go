package lab

import (
	"bytes"
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

// installTagging puts the lab's handlers before the tag service's.
func (l *Lab) installTagging() {
	for _, pattern := range []string{"POST " + categoryPath, "PATCH " + categoryPath + "/"} {
		l.model.Service.HandleFunc(pattern, l.serveCategory)
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

// categoryName is the name of a tag category. The simulator has it in a field of a type that it doesn't
// export.
func categoryName(service tagService, id string) string {
	if locker, ok := service.(sync.Locker); ok {
		locker.Lock()
		defer locker.Unlock()
	}
	field := reflect.Indirect(reflect.ValueOf(service)).FieldByName("Category")
	if !field.IsValid() {
		return id
	}
	categories, _ := field.Interface().(map[string]*tags.Category)
	if c := categories[id]; c != nil {
		return c.Name
	}
	return id
}

// Command kubernetes-objects judges manifests as an API server does before it stores them: strict decoding, defaults,
// validation and warnings, all by Kubernetes' own code.
//
// It reads YAML documents from standard input and prints a line of JSON for each object in them. A kind that is not
// Kubernetes' own is only read, with its fields as a client would send them.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/pod"
	"k8s.io/kubernetes/pkg/apis/apps"
	appsv1 "k8s.io/kubernetes/pkg/apis/apps/v1"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	batchv1 "k8s.io/kubernetes/pkg/apis/batch/v1"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	corev1 "k8s.io/kubernetes/pkg/apis/core/v1"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
	"sigs.k8s.io/yaml"
)

// verdict is what is printed of an object.
type verdict struct {
	// Object is the document as JSON.
	Object json.RawMessage `json:"object"`
	// Known is whether the kind is one of Kubernetes' that this command can judge.
	Known bool `json:"known"`
	// Errors are the reasons for which an API server would refuse the object.
	Errors []string `json:"errors"`
	// Warnings are what it would say while it stores it.
	Warnings []string `json:"warnings"`
	// Stored is the object with its defaults.
	Stored json.RawMessage `json:"stored,omitempty"`
}

var scheme = runtime.NewScheme()

func init() {
	for _, add := range []func(*runtime.Scheme) error{
		core.AddToScheme, corev1.AddToScheme, apps.AddToScheme, appsv1.AddToScheme, batch.AddToScheme, batchv1.AddToScheme,
	} {
		utilruntime.Must(add(scheme))
	}
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in io.Reader, out io.Writer) error {
	reader := utilyaml.NewYAMLReader(bufio.NewReader(in))
	encoder := json.NewEncoder(out)
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if empty(document) {
			continue
		}
		verdicts, err := judgeDocument(document)
		if err != nil {
			return err
		}
		for _, v := range verdicts {
			if err := encoder.Encode(v); err != nil {
				return err
			}
		}
	}
}

// empty tells a document that has only comments.
func empty(document []byte) bool {
	var any any
	return yaml.Unmarshal(document, &any) == nil && any == nil
}

// judgeDocument judges an object, or each item of a v1 List.
func judgeDocument(document []byte) ([]verdict, error) {
	raw, err := yaml.YAMLToJSONStrict(document)
	if err != nil {
		return []verdict{{Object: json.RawMessage("null"), Errors: []string{err.Error()}}}, nil
	}
	var list struct {
		metav1.TypeMeta `json:",inline"`
		Items           []json.RawMessage `json:"items"`
	}
	if json.Unmarshal(raw, &list) == nil && list.APIVersion == "v1" && list.Kind == "List" {
		verdicts := make([]verdict, 0, len(list.Items))
		for _, item := range list.Items {
			verdicts = append(verdicts, judge(item))
		}
		return verdicts, nil
	}
	return []verdict{judge(raw)}, nil
}

func judge(raw []byte) verdict {
	v := verdict{Object: raw, Errors: []string{}, Warnings: []string{}}
	decoder := serializer.NewSerializerWithOptions(
		serializer.DefaultMetaFactory, scheme, scheme, serializer.SerializerOptions{Strict: true},
	)
	decoded, _, err := decoder.Decode(bytes.Clone(raw), nil, nil)
	if runtime.IsNotRegisteredError(err) {
		return v
	}
	v.Known = true
	if err != nil {
		v.Errors = append(v.Errors, err.Error())
		if !runtime.IsStrictDecodingError(err) {
			return v
		}
	}
	scheme.Default(decoded)
	stored, err := json.Marshal(decoded)
	if err != nil {
		v.Errors = append(v.Errors, err.Error())
		return v
	}
	v.Stored = stored
	internal, err := scheme.ConvertToVersion(decoded, runtime.InternalGroupVersioner)
	if err != nil {
		v.Errors = append(v.Errors, err.Error())
		return v
	}
	found, warnings := validate(internal)
	for _, each := range found {
		v.Errors = append(v.Errors, each.Error())
	}
	v.Warnings = append(v.Warnings, warnings...)
	return v
}

// validate does what the strategy of each kind does when one is created in a namespace.
func validate(object runtime.Object) (field.ErrorList, []string) {
	context, template := context.Background(), field.NewPath("spec", "template")
	if meta, ok := object.(metav1.Object); ok && meta.GetNamespace() == "" {
		if _, of := object.(*core.Namespace); !of {
			meta.SetNamespace("default")
		}
	}
	switch o := object.(type) {
	case *core.Pod:
		options := pod.GetValidationOptionsFromPodSpecAndMeta(&o.Spec, nil, &o.ObjectMeta, nil)
		return corevalidation.ValidatePodCreate(o, options), pod.GetWarningsForPod(context, o, nil)
	case *core.Service:
		if len(o.Spec.ClusterIPs) == 0 && o.Spec.ClusterIP != "" {
			o.Spec.ClusterIPs = []string{o.Spec.ClusterIP}
		}
		return corevalidation.ValidateServiceCreate(o), nil
	case *core.ConfigMap:
		return corevalidation.ValidateConfigMap(o), nil
	case *core.ServiceAccount:
		return corevalidation.ValidateServiceAccount(o), nil
	case *core.Namespace:
		return corevalidation.ValidateNamespace(o), nil
	case *apps.Deployment:
		options := pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)
		return appsvalidation.ValidateDeployment(o, options), pod.GetWarningsForPodTemplate(context, template, &o.Spec.Template, nil)
	case *apps.DaemonSet:
		options := pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil)
		return appsvalidation.ValidateDaemonSet(o, options), pod.GetWarningsForPodTemplate(context, template, &o.Spec.Template, nil)
	case *batch.Job:
		options := batchvalidation.JobValidationOptions{
			PodValidationOptions: pod.GetValidationOptionsFromPodTemplate(&o.Spec.Template, nil),
		}
		// What the API server makes up for a job without a selector.
		if o.Spec.Selector == nil {
			generated := map[string]string{"batch.kubernetes.io/controller-uid": string(o.UID)}
			o.Spec.Selector = &metav1.LabelSelector{MatchLabels: generated}
			if o.Spec.Template.Labels == nil {
				o.Spec.Template.Labels = map[string]string{}
			}
			o.Spec.Template.Labels["batch.kubernetes.io/controller-uid"] = string(o.UID)
		}
		return batchvalidation.ValidateJob(o, options), pod.GetWarningsForPodTemplate(context, template, &o.Spec.Template, nil)
	default:
		missing := fmt.Sprintf("%T is none of the kinds that this command validates", object)
		return field.ErrorList{field.InternalError(nil, errors.New(missing))}, nil
	}
}

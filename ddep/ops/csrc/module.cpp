// The extension module ddep._C: importing it registers the operators of the files beside it.
#include <Python.h>

#include "cpu/instruction_set.h"

PyMODINIT_FUNC PyInit__C() {
  static PyModuleDef definition = {
      PyModuleDef_HEAD_INIT, "_C", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};
  PyObject* module = PyModule_Create(&definition);
#if defined(DDEP_WITH_CUDA)
  constexpr int with_cuda = 1;
#else
  constexpr int with_cuda = 0;
#endif
  if (module && PyModule_AddIntConstant(module, "with_cuda", with_cuda) == 0 &&
      PyModule_AddStringConstant(module, "cpu_kernels", ddep::has_avx2() ? "AVX2" : "default") ==
          0) {
    return module;
  }
  Py_XDECREF(module);
  return nullptr;
}

# The CUDA library: the same schemas, which the CPU library brings, with kernels for GPUs.
# It is linked as the CPU library is: a CUDA build of torch brings the few symbols of CUDA that it
# takes from torch through libtorch.so, so that neither torch nor a GPU is needed here.
set(PERCEPTION_CUDA AUTO CACHE STRING "Build the CUDA library: AUTO (where nvcc is found), ON or OFF")
set(PERCEPTION_CUDA_ARCHS "" CACHE STRING
  "CUDA architectures, as in CMAKE_CUDA_ARCHITECTURES; empty: this machine's GPUs, else 90a-real; RELEASE: all")
set(RELEASE_ARCHS 80-real 86-real 89-real 90a-real 100-real 120) # and PTX of the last, for what comes

if(NOT PERCEPTION_CUDA)
  message(STATUS "CUDA library: not built (PERCEPTION_CUDA is ${PERCEPTION_CUDA})")
  return()
endif()

# nvcc: $CUDACXX, on PATH, or where its installer puts it. A search that failed before is made again.
if(NOT CMAKE_CUDA_COMPILER)
  unset(CMAKE_CUDA_COMPILER CACHE)
  find_program(found_nvcc nvcc PATHS /usr/local/cuda/bin NO_CACHE)
  if(NOT DEFINED ENV{CUDACXX} AND found_nvcc)
    set(ENV{CUDACXX} ${found_nvcc})
  endif()
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF) # the target names its own
include(CheckLanguage)
check_language(CUDA)
if(CMAKE_CUDA_COMPILER)
  enable_language(CUDA)
endif()
if(NOT CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.0)
  if(PERCEPTION_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA library: not built, no working nvcc >= 12 on PATH")
    return()
  endif()
  message(FATAL_ERROR "PERCEPTION_CUDA is ON and there is no working nvcc >= 12 on PATH: install the CUDA "
    "toolkit, name it with CUDACXX=/path/to/nvcc, or set PERCEPTION_CUDA=OFF")
endif()

# The architectures of this machine's GPUs: [9.0] -> 90a-real.
function(native_architectures result)
  execute_process(COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE listed ERROR_QUIET RESULT_VARIABLE failed)
  set(archs)
  if(NOT failed)
    string(REGEX MATCHALL "[0-9]+\\.[0-9]" listed "${listed}")
    foreach(capability IN LISTS listed)
      string(REPLACE "." "" capability ${capability})
      string(REGEX REPLACE "^90$" "90a" capability ${capability})
      list(APPEND archs ${capability}-real)
    endforeach()
    list(REMOVE_DUPLICATES archs)
  endif()
  set(${result} "${archs}" PARENT_SCOPE)
endfunction()

set(cuda_archs ${PERCEPTION_CUDA_ARCHS})
if(cuda_archs STREQUAL "RELEASE")
  set(cuda_archs ${RELEASE_ARCHS})
elseif(NOT cuda_archs)
  native_architectures(cuda_archs)
  if(NOT cuda_archs)
    set(cuda_archs 90a-real)
  endif()
endif()
message(STATUS "CUDA library: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, architectures ${cuda_archs}")

add_library(perception_cuda MODULE
  cuda/conv.cu
  cuda/conv_mma.cu
  cuda/conv_wgmma.cu
  cuda/group_by.cu
  cuda/hopper.cu
  cuda/index.cu
  cuda/layers.cu
  cuda/neighbor_table.cu
  cuda/normalization.cu
  cuda/normalize.cu
  cuda/pairs.cu
  cuda/plan.cu
  cuda/points.cu
  cuda/reach.cu
  cuda/segment.cu
  cuda/segment_max.cu
  cuda/strided.cu
  cuda/tiles.cu
  cuda/unique.cu
  cuda/weight_grad_mma.cu
  cuda/weight_grad_wgmma.cu)
target_include_directories(perception_cuda PRIVATE ${CMAKE_CURRENT_SOURCE_DIR})
target_compile_definitions(perception_cuda PRIVATE USE_CUDA)
target_compile_options(perception_cuda PRIVATE -O3 --threads=4 -Xcompiler=-Wall)
# No other copy of the CUDA runtime, such as torch's, may take the place of the one in the library.
target_link_options(perception_cuda PRIVATE "LINKER:--exclude-libs,ALL")
target_link_libraries(perception_cuda PRIVATE torch_stable)
set_target_properties(perception_cuda PROPERTIES
  CUDA_ARCHITECTURES "${cuda_archs}" CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON CUDA_RUNTIME_LIBRARY Static)
finish_library(perception_cuda)

# What the library was built for, for messages.
string(REPLACE ";" "\", \"" listed "${cuda_archs}")
file(CONFIGURE OUTPUT cuda.json CONTENT
  "{\"toolkit\": \"${CMAKE_CUDA_COMPILER_VERSION}\", \"architectures\": [\"${listed}\"]}\n" @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/cuda.json DESTINATION lib)

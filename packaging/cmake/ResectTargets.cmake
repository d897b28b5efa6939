# Functions that declare Resect's targets. One folder is one shared library, so that what a folder may use is what it links.

add_library(resect_options INTERFACE)
target_compile_options(resect_options INTERFACE -Wall -Wextra)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(resect_options INTERFACE -Wno-restrict)  # GCC 12 reports it falsely for std::string (its bug 105651)
endif()
target_include_directories(resect_options INTERFACE ${PROJECT_SOURCE_DIR})
if(RESECT_SANITIZE)
  target_compile_options(resect_options INTERFACE -fsanitize=address,undefined -fno-omit-frame-pointer -g1)
  target_link_options(resect_options INTERFACE -fsanitize=address,undefined)
endif()

find_program(RESECT_CCACHE ccache)
if(RESECT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${RESECT_CCACHE})
endif()

# resect_folder(NAME target LINK libs... [TORCH]): every .cpp of the current source folder as the shared library resect_NAME.
# TORCH links LibTorch and uses the shared precompiled header.
function(resect_folder name)
  cmake_parse_arguments(ARG "TORCH" "FOLDER" "LINK" ${ARGN})
  set(folder ${CMAKE_CURRENT_SOURCE_DIR}/${name})
  file(GLOB sources CONFIGURE_DEPENDS ${folder}/*.cpp ${folder}/*.h)
  add_library(resect_${name} SHARED ${sources})
  set_target_properties(resect_${name} PROPERTIES LINKER_LANGUAGE CXX)
  target_link_libraries(resect_${name} PUBLIC resect_options ${ARG_LINK})
  if(NOT RESECT_SANITIZE)
    target_link_options(resect_${name} PRIVATE -Wl,--no-undefined)  # what a folder uses, it must link
  endif()
  if(ARG_TORCH)
    target_link_libraries(resect_${name} PUBLIC resect_torch)
    resect_use_torch_pch(resect_${name})
  endif()
endfunction()

# One precompiled torch/torch.h for all engine targets: built once by resect_torch_pch, reused by the others.
function(resect_use_torch_pch target)
  if(NOT TARGET resect_torch_pch)
    file(WRITE ${PROJECT_BINARY_DIR}/torch_pch.cpp "// Carries the precompiled header.\n")
    add_library(resect_torch_pch OBJECT ${PROJECT_BINARY_DIR}/torch_pch.cpp)
    target_link_libraries(resect_torch_pch PUBLIC resect_options resect_torch)
    target_precompile_headers(resect_torch_pch PRIVATE <torch/torch.h> <nlohmann/json.hpp>)
  endif()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")  # -fpie would not match the header, which would then be compiled anew without a word
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_precompile_headers(${target} REUSE_FROM resect_torch_pch)
endfunction()

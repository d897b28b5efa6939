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

# Used when it is there; not among the packages to install, as hashing the precompiled headers makes a first build a fifth slower.
find_program(RESECT_CCACHE ccache)
if(RESECT_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime ${RESECT_CCACHE})
endif()

# resect_folder(NAME target LINK libs... [TORCH]): every .cpp of the current source folder as the shared library resect_NAME.
# TORCH links LibTorch.
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
    resect_use_pch(resect_${name} torch)
  elseif(NOT name STREQUAL "base")
    resect_use_pch(resect_${name} json)
  endif()
endfunction()

# Precompiled headers, each built once and reused by every target of its kind. A compiler takes only one for each file, and instantiates
# for every file what the header left pending, so each holds no more than its targets share (torch/torch.h would triple its time).
# BRIEF: for targets that compute little themselves; optimising them would take as long as all the rest.
function(resect_pch name)
  cmake_parse_arguments(ARG "BRIEF" "" "LINK;HEADERS" ${ARGN})
  set(carrier ${PROJECT_BINARY_DIR}/pch_${name}.cpp)
  if(NOT EXISTS ${carrier})
    file(WRITE ${carrier} "// Carries a precompiled header.\n")
  endif()
  add_library(resect_pch_${name} OBJECT ${carrier})
  set_target_properties(resect_pch_${name} PROPERTIES AUTOMOC OFF AUTORCC OFF)
  target_link_libraries(resect_pch_${name} PUBLIC resect_options ${ARG_LINK})
  if(ARG_BRIEF)
    target_compile_options(resect_pch_${name} PUBLIC $<$<CONFIG:Release>:-O1>)
  endif()
  target_precompile_headers(resect_pch_${name} PRIVATE ${ARG_HEADERS})
endfunction()

function(resect_use_pch target name)
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")  # -fpie would not match the header, which would then be compiled anew without a word
    set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE OFF)
    target_compile_options(${target} PRIVATE -fPIC)
  endif()
  target_compile_options(${target} PRIVATE $<TARGET_PROPERTY:resect_pch_${name},INTERFACE_COMPILE_OPTIONS>)
  target_precompile_headers(${target} REUSE_FROM resect_pch_${name})
endfunction()

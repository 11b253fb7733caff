# A thin front: CMake builds, .ci/ and test/ hold the scripts. `make run` is the place to start.
BUILD ?= release
TIME ?= 12
JOBS := $(shell nproc)
MAKEFLAGS += --no-print-directory

all: build

# Installs what is missing, builds, starts the first script.
run: deps build
	@echo
	@echo "Moongate serves scripts/hello.lua. In another terminal:"
	@echo
	@echo "    curl 127.0.0.1:8080/"
	@echo
	@echo "Ctrl-C drains and stops it."
	@echo
	@exec build/moongate run scripts/hello.lua

build:
	@cmake -B build -DCMAKE_BUILD_TYPE=Release >/dev/null
	@cmake --build build -j $(JOBS)

# BUILD=release, asan or tsan.
test:
	@.ci/test $(BUILD)

lint:
	@test/lint/run

# What is made from other sources and kept: the declarations for Lua's FFI, and the stubs for editors.
generate:
	@cmake/generate .

# Applies .clang-format; a sweep is its own commit.
format:
	@find core test -name '*.[ch]' | xargs luajit test/lint/hoist.lua
	@find core test -name '*.[ch]' | xargs clang-format -i

# Every target for TIME seconds.
fuzz:
	@.ci/fuzz $(TIME)

bench: build-bench
	@MOONGATE_BIN=$(CURDIR)/build-bench/moongate test/bench/run $(ARGS)

bench-changes: build-bench
	@MOONGATE_BIN=$(CURDIR)/build-bench/moongate test/bench/changes $(ARGS)

build-bench:
	@cmake -B build-bench -DCMAKE_BUILD_TYPE=Release -DMOON_BENCH=ON >/dev/null
	@cmake --build build-bench -j $(JOBS)

deps:
	@.ci/deps build

deps-test:
	@.ci/deps build test

deps-bench:
	@.ci/deps build bench

clean:
	@rm -rf build build-test build-asan build-tsan build-fuzz build-bench build-coverage

.PHONY: all run build test lint generate format fuzz bench bench-changes build-bench deps deps-test deps-bench clean

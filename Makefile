# keybridge: one non-recursive Makefile.  `make help` lists the targets.
#
# MODE picks the build (debug, release, asan, tsan, fuzz); each has its own folder, so they coexist.

MODE ?= release
B    ?= build/$(MODE)
ifeq ($(origin CC),default)
CC   := gcc
endif
ifeq ($(MODE),fuzz)
CC   := clang
endif
RUN  ?=

PKGS := libpq libmariadb libcurl openssl libzstd sqlite3 expat jansson libxxhash libdeflate smartcols uuid libmicrohttpd

WARN := -Wall -Wextra -Wshadow -Wconversion -Wsign-conversion -Wcast-qual -Wformat=2 \
        -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith -Wwrite-strings -Wundef \
        -Wvla -Wswitch-enum -Wimplicit-fallthrough -Wdouble-promotion
has   = $(shell $(CC) -Werror $(1) -fsyntax-only -xc /dev/null 2>/dev/null && echo $(1))
WARN += $(foreach w,-Wlogical-op -Wduplicated-cond -Wduplicated-branches -Wno-format-truncation,$(call has,$(w)))

OPT_debug   := -O0 -g3
OPT_release := -O2 -g -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
OPT_asan    := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
OPT_tsan    := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
OPT_fuzz    := $(OPT_asan) -fsanitize=fuzzer-no-link

# Named crash points and other test hooks exist in every build but the one that is installed.
ifneq ($(MODE),release)
TEST_HOOKS := -DKB_TEST_HOOKS
endif

PKG_CFLAGS := $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
PKG_LIBS   := $(shell pkg-config --libs $(PKGS) 2>/dev/null)
CPPFLAGS += -I. -D_GNU_SOURCE $(TEST_HOOKS) $(PKG_CFLAGS)
CFLAGS   := -std=c17 $(OPT_$(MODE)) $(WARN) $(if $(WERROR),-Werror) -pthread $(EXTRA_CFLAGS)
LDFLAGS  += $(filter-out -fsanitize=fuzzer-no-link,$(filter -fsanitize=%,$(OPT_$(MODE)))) -pthread
LDLIBS   += $(PKG_LIBS) -lm

VERSION := $(shell cat VERSION)$(shell git rev-parse --short=10 HEAD 2>/dev/null | sed 's/^/+g/')

SRC  := $(wildcard engine/*/*.c decoders/*.c decoders/*/*.c appliers/*.c appliers/*/*.c aws/*.c)
MAIN := engine/cmd/main.c
LIB  := $(B)/libkeybridge.a
obj   = $(patsubst %.c,$(B)/obj/%.o,$(1))

UNIT  := $(patsubst tests/unit/%.c,$(B)/bin/%,$(wildcard tests/unit/test_*.c))
# replay.c stands in for libFuzzer's main in the other builds
FUZZ  := $(patsubst tests/fuzz/%.c,$(B)/bin/%,$(wildcard tests/fuzz/fuzz_*.c))
TOOLS := $(patsubst tests/tools/%.c,$(B)/bin/%,$(wildcard tests/tools/*.c))
BENCH := $(patsubst bench/%.c,$(B)/bin/%,$(wildcard bench/*.c))
TOOLS := $(patsubst tests/tools/%.c,$(B)/bin/%,$(wildcard tests/tools/*.c))

# `make V=1` shows whole commands.
ifneq ($(V),1)
Q := @
say = @printf '  %-5s %s\n' $(1) $@
endif

.DEFAULT_GOAL := all
.DELETE_ON_ERROR:
.PHONY: all bin tests fuzzers needs deps check checked check-unit check-it check-crash check-lab check-asan check-tsan check-valgrind \
        check-matrix check-deep fuzz fuzz-short bench demo lint format tidy docs man install clean help FORCE

all: bin ## Build keybridge (MODE=release|debug|asan|tsan; WERROR=1; CC=clang; V=1)
bin: $(B)/bin/keybridge
tests: bin $(UNIT) $(FUZZ) $(TOOLS) ## Build keybridge and every C test
fuzzers: $(FUZZ)

# One message instead of a hundred missing headers.
missing = $(strip $(foreach p,$(PKGS),$(shell pkg-config --exists $(p) 2>/dev/null || echo $(p))))
needs:
	@if [ -n "$(missing)" ]; then \
	    echo "keybridge: pkg-config doesn't find: $(missing)" >&2; \
	    echo "  hint: make deps installs the Debian packages; docs/build.md lists them" >&2; exit 1; fi

$(B)/obj/%.o: %.c Makefile | needs
	@mkdir -p $(@D)
	$(call say,CC)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c $< -o $@

# Written only when it says something new.
$(B)/version.h: FORCE
	@mkdir -p $(@D)
	@echo '#define KB_VERSION "$(VERSION)"' | cmp -s - $@ || echo '#define KB_VERSION "$(VERSION)"' > $@
$(B)/obj/engine/cmd/main.o: CPPFLAGS += -include $(B)/version.h
$(B)/obj/engine/cmd/main.o: $(B)/version.h

$(LIB): $(call obj,$(filter-out $(MAIN),$(SRC)))
	$(call say,AR)
	@rm -f $@
	$(Q)ar rcs $@ $^

$(B)/bin/keybridge: $(call obj,$(MAIN)) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/bin/test_%: $(B)/obj/tests/unit/test_%.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS) -lcmocka

# In MODE=fuzz a libFuzzer program; in every other mode a plain one that replays files.
$(B)/bin/fuzz_%: $(B)/obj/tests/fuzz/fuzz_%.o $(if $(filter fuzz,$(MODE)),,$(B)/obj/tests/fuzz/replay.o) $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) $(if $(filter fuzz,$(MODE)),-fsanitize=fuzzer) -o $@ $^ $(LDLIBS)

# Programs that only tests run, to drive a part of keybridge from Python.
$(B)/bin/%: $(B)/obj/tests/tools/%.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# Programs that tests in Python drive.
$(TOOLS): $(B)/bin/%: $(B)/obj/tests/tools/%.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

$(B)/bin/%: $(B)/obj/bench/%.o $(LIB)
	@mkdir -p $(@D)
	$(call say,LINK)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ $(LDLIBS)

compile_commands.json: Makefile ## For editors and clang-tidy
	@{ echo '['; first=; for f in $(SRC) $(wildcard tests/unit/*.c tests/fuzz/*.c tests/tools/*.c bench/*.c); do \
	    [ -z "$$first" ] || echo ','; first=no; \
	    printf '{"directory":"%s","file":"%s","command":"%s"}' "$(CURDIR)" "$$f" \
	        "clang $(filter-out -Wlogical-op -Wduplicated-cond -Wduplicated-branches,$(CPPFLAGS) $(CFLAGS)) -c $$f"; \
	done; echo; echo ']'; } > $@

deps: ## Install the Debian packages that are missing (as root or with sudo)
	@tests/deps.sh

# The packages decide what this file sees, so what needs them runs in a make of its own.
check: deps ## Everything that must hold: lint, both compilers, unit, integration, crash, end to end, fuzzers
	@$(MAKE) --no-print-directory checked
checked:
	@tests/run.py check

check-unit: ## Unit tests of this MODE (RUN='valgrind …' in front of each)
	@RUN='$(RUN)' tests/run.py unit --mode $(MODE)
check-it: ## Integration tests on real servers, with this MODE's keybridge
	@tests/run.py it --mode $(MODE)
check-crash: ## kill -9 at named points and random moments, with the ASan build
	@tests/run.py crash
check-lab: ## The local AWS by itself
	@tests/run.py lab
check-asan check-tsan: check-%: ## Unit and integration tests under a sanitizer
	@tests/run.py unit it --mode $*
check-valgrind: ## Unit tests under valgrind
	@RUN='valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite' tests/run.py unit --mode debug
check-matrix: ## The stream between other versions of PostgreSQL (11 to 18), fetched from npm
	@tests/deps.sh deep
	@tests/run.py matrix
FUZZ_SECONDS ?= 120
check-deep: ## check with the long tests, TSan, valgrind, other versions of PostgreSQL, FUZZ_SECONDS (120) of each fuzzer (an hour)
	@tests/deps.sh deep
	@tests/run.py deep --seconds $(FUZZ_SECONDS)

SECONDS ?= 60
fuzz: ## Each fuzzer for SECONDS (60) seconds; what it finds is kept in build/fuzz
	@tests/run.py fuzz --seconds $(SECONDS)
fuzz-short:
	@tests/run.py fuzz --seconds 30

bench: all $(BENCH) ## Measure beside PostgreSQL's own subscription (ARGS="--repeat 3 --json"); see docs/speed.md
	@KB_BIN=$(abspath $(B))/bin/keybridge bench/run.py $(ARGS)

demo: deps ## A whole move to another key on this machine: a lab of real servers, a load, the receipt
	@$(MAKE) --no-print-directory bin MODE=release
	@KB_BIN=$(CURDIR)/build/release/bin/keybridge /usr/bin/python3 tests/demo/demo.py

lint: bin man ## Layers, banned calls, formats, generated files, shell and Python syntax
	@tests/lint/lint.sh $(B)/bin/keybridge

C_FILES = $(shell git ls-files '*.c' '*.h' 2>/dev/null || find engine decoders appliers aws tests bench -name '*.[ch]')
format: ## Format all C files
	@clang-format -i $(C_FILES)
tidy: compile_commands.json ## clang-tidy on all sources (slow; advisory)
	@clang-tidy --quiet -p . $(SRC)

docs: bin man ## Generate what is generated: docs/options.md, docs/keybridge.ini
	@$(B)/bin/keybridge config markdown > docs/options.md
	@$(B)/bin/keybridge config ini > docs/keybridge.ini

MAN := build/man/keybridge.1 build/man/keybridge.conf.5
man: $(MAN)
build/man/keybridge.1: docs/man/keybridge.1.scd $(B)/bin/keybridge
	@mkdir -p $(@D)
	@{ sed '/^@COMMANDS@$$/,$$d' $<; $(B)/bin/keybridge config commands; sed '1,/^@COMMANDS@$$/d' $<; } | scdoc > $@
build/man/keybridge.conf.5: docs/man/keybridge.conf.5.scd $(B)/bin/keybridge
	@mkdir -p $(@D)
	@{ sed '/^@OPTIONS@$$/,$$d' $<; $(B)/bin/keybridge config man; sed '1,/^@OPTIONS@$$/d' $<; } | scdoc > $@

PREFIX ?= /usr/local
install: bin man ## Install program, man pages and sample file below DESTDIR and PREFIX
	install -D -m 755 $(B)/bin/keybridge $(DESTDIR)$(PREFIX)/bin/keybridge
	install -D -m 644 build/man/keybridge.1 $(DESTDIR)$(PREFIX)/share/man/man1/keybridge.1
	install -D -m 644 build/man/keybridge.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5/keybridge.conf.5
	install -D -m 644 docs/keybridge.ini $(DESTDIR)$(PREFIX)/share/doc/keybridge/keybridge.ini

clean: ## Remove what was built
	rm -rf build compile_commands.json

help: ## This list
	@sed -n 's/^\([a-z][a-z_ .-]*\):[^#=]*## \(.*\)/\1\t\2/p' Makefile | while IFS="$$(printf '\t')" read -r name text; do \
	    printf '  %-24s %s\n' "$$name" "$$text"; done

.SECONDARY:
-include $(patsubst %.c,$(B)/obj/%.d,$(SRC) $(wildcard tests/unit/*.c tests/fuzz/*.c tests/tools/*.c bench/*.c))

# ngx_rt: GNU make, everything it makes is under $(BUILD).
#
#   make                the module for this machine's nginx, or for the tree
#                       that NGINX_SRC= names (CFLAGS= are added)
#   make run            the demo: Redis, nginx, a page (PORT=8080)
#   make test           the whole suite (T=t/10-poll.t: some of it)
#   make soak           all faults under load, for MINUTES= (SOURCE=, SEED=,
#                       CLIENTS=, ...: t/soak.pl)
#   make bench          figures as ratios to the limit, about ten minutes
#   make bench-quick    ... less than one (ONLY=fan,polls,..., ROUNDS=, for
#                       both)
#   make instructions   counts what t/87-instructions.t compares, into its file
#   make install        the module and a load snippet (DESTDIR=)
#   make asan           an nginx with sanitizers and the module in it
#   make unit           the unit tests alone (NAME=, default all)
#   make fuzz           fuzzes (NAME=, default all; SECONDS=60 each)
#   make static-check   nginx from source with the module linked in
#   make check          cppcheck, line and function lengths
#   make clean
#
# Packages that are missing are installed first, see tools/deps.sh;
# NO_DEPS=1 leaves that to you.

BUILD     = build
NGINX_SRC = /usr/share/nginx/src
PORT      = 8080
T         = t
SECONDS   = 60

# options of t/bench/bench.pl
BENCH = ONLY ROUNDS OUT CORRUPT

# options of t/soak.pl
SOAK = SEED MINUTES SOURCE CLIENTS CHANNELS RATE WORKERS POLLERS VISITORS \
       RETRY PACE OFF ONLY

SRCS := $(wildcard ngx_rt_module/*.c)
HDRS := $(wildcard ngx_rt_module/*.h)
SO    = $(BUILD)/ngx_http_rt_module.so

export BUILD NGINX_SRC PORT CFLAGS
ifneq ($(origin CC),default)
export CC
endif

all: $(SO)

$(SO): config $(SRCS) $(HDRS) tools/module.sh $(BUILD)/.tree \
       $(wildcard $(NGINX_SRC)/src/core/nginx.h)
	@tools/deps.sh build
	@MAKEFLAGS= tools/module.sh
	@echo $@

# rewritten when another tree is asked for
$(BUILD)/.tree: FORCE
	@mkdir -p $(BUILD)
	@echo '$(NGINX_SRC) $(CC) $(CFLAGS)' | cmp -s - $@ \
	    || echo '$(NGINX_SRC) $(CC) $(CFLAGS)' > $@

run: $(SO)
	@tools/deps.sh run
	@exec tools/run.sh

test: $(SO)
	@tools/deps.sh run test source $(if $(filter t,$(T)),browser)
	@prove --timer $(PROVE) $(T)

soak: $(SO)
	@tools/deps.sh run test
	@perl t/soak.pl $(foreach v,$(SOAK),$(if $($v),$v="$($v)"))

bench bench-quick: $(SO)
	@tools/deps.sh run test
	@$(MAKE) -s --no-print-directory -C t/bench BUILD='$(abspath $(BUILD))'
	@perl t/bench/bench.pl size=$(if $(filter bench,$@),full,quick) \
	    $(foreach v,$(BENCH),$(if $($v),$v="$($v)"))

instructions: $(SO)
	@tools/deps.sh run test
	@RT_INSTRUCTIONS=write perl t/87-instructions.t

unit: $(SO)
	@$(MAKE) --no-print-directory -C t/unit BUILD='$(abspath $(BUILD))' run

fuzz: $(SO)
	@$(MAKE) --no-print-directory -C t/fuzz BUILD='$(abspath $(BUILD))' run \
	    SECONDS=$(SECONDS)

asan:
	@tools/deps.sh build source
	@MAKEFLAGS= tools/nginx.sh asan

static-check:
	@tools/deps.sh build source
	@MAKEFLAGS= tools/nginx.sh static

check:
	@tools/deps.sh test
	@tools/check.sh

install: $(SO)
	@tools/install.sh

clean:
	rm -rf $(BUILD)

FORCE:

.PHONY: all run test soak bench bench-quick instructions unit fuzz asan static-check check install clean FORCE

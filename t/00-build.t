# The build: what the module shows of itself and needs, that it gets along
# with another module that brings a hiredis, what is said when something is
# missing, that make does what is due and no more, with gcc and with clang,
# and make install.  The static build takes minutes: only with RT_SLOW=1 or
# in CI.

use v5.36;
use FindBin;
use lib "$FindBin::Bin/lib";
use RT;
use File::Path qw(make_path);

plan(skip_all => 'tests the module of make') if asan();
need(qw(nm readelf clang gcc make));

my $so = root() . '/build/ngx_http_rt_module.so';
my $nchan = '/usr/lib/nginx/modules/ngx_nchan_module.so';
my %jobs;

# of the make that runs this, variables count; it has no jobs for ours
my ($variables) = ($ENV{MAKEFLAGS} // '') =~ /(?:^| )(-- .*)/;
$ENV{MAKEFLAGS} = $variables // '';
delete $ENV{MFLAGS};

# in the background: every compile that is awaited costs configure's time
sub start ($name, @argv) {
    my $out = dir() . "/$name.out";
    $jobs{$name} = [RT::spawn(['env', 'NO_DEPS=1', @argv], out => $out), $out];
}

sub finish ($name, $seconds = 200) {
    my ($pid, $out) = @{delete $jobs{$name}};
    my $ended = RT::poll_until(sub { !RT::running($pid) }, $seconds);
    my $status = $ended ? $? : -1;
    if (!$ended) {
        RT::kill_group($pid);
        diag("$name: not within $seconds s");
    }
    my $text = slurp($out);
    unlink $out;
    return ($status, $text);
}

sub run (@argv) {
    start('run', @argv);
    return finish('run');
}


# A copy of the project, and a compiler that writes down what it compiles.  It
# says that it is clang; in the mode "check" clang looks at the module's files
# but makes no code, in "trust" it does not look either.  The many tests of
# configure are left to gcc, which takes half the time for them, and each is
# compiled once; in the mode "bare" there is no hiredis, in "calls" no liburing
# and clang looks at what would use it.

my $copy = dir() . '/copy';
make_path($copy, dir() . '/tried');
system('cp', '-a', (map { root() . "/$_" } qw(Makefile config tools
    ngx_rt_module)), $copy) == 0 or die "cp: $?\n";

my $cc = dir() . '/cc';
RT::spew($cc, <<'END' =~ s/DIR/dir()/ger);
#!/bin/sh
out= src= kind= last=
for arg; do
    case $last in -o) out=$arg ;; esac
    case $arg in
        -c)      kind=object ;;
        -shared) kind=module ;;
        -v)      kind=name ;;
        *.c)     src=$arg ;;
    esac
    last=$arg
done
read -r mode < DIR/mode
case $kind in
    name)   exec clang "$@" ;;
    module) : > "$out"; exit ;;
    object)
        if case $mode:$src in check:*|calls:*_sender.c) ;; *) false; esac
        then
            clang -fsyntax-only "$@" || exit 1
        fi
        echo "${src##*/}" >> DIR/compiled
        : > "$out"
        exit ;;
esac
[ "$out" ] && [ "$src" ] || exec gcc "$@"
[ "$mode" != bare ] || ! grep -q hiredis "$src" || exit 1
[ "$mode" != calls ] || ! grep -q liburing "$src" || exit 1
key=DIR/tried/$( (echo "$*"; cat "$src") | cksum | tr ' ' -)
if [ ! -e "$key" ]; then
    if gcc "$@"; then mv "$out" "$key"; else : > "$key"; fi
fi
[ -s "$key" ] && cp "$key" "$out"
END
chmod 0755, $cc;
RT::spew(dir() . '/mode', "check\n");

my @make = ('make', '--no-print-directory', '-C', $copy, "CC=$cc");
start('clang', @make);


# while that runs: the module that make has built

sub symbols ($option, $file) {
    my %names = map { /(\S+?)(?:@\S+)?$/ ? ($1 => 1) : () }
        split /\n/, `nm -D $option $file`;
    return \%names;
}

my $shown = symbols('--defined-only', $so);
cmp_ok(scalar keys %$shown, '>', 100, 'nm shows what the module defines');
is_deeply([sort grep { !/^ngx_(?:http_)?rt_/ } keys %$shown],
    [qw(ngx_module_names ngx_module_order ngx_modules)],
    'names of ours only, and the three that nginx asks for');
ok($shown->{ngx_http_rt_module}, 'among them the module');

my $needed = `readelf -d $so`;
is_deeply([$needed =~ /\(NEEDED\).*\[(.*)\]/g], ['libc.so.6'],
    'needs nothing but libc');
like($needed, qr/\(FLAGS\).*BIND_NOW/, 'and has all of it bound at once');
my ($ok, $text) = nginx_t(server => '');
ok($ok, 'nginx has all that is bound') or diag($text);

# beside Nchan, which shows its own hiredis to every module

SKIP: {
    skip 'no Nchan', 2 if !-e $nchan;
    ok(symbols('--defined-only', $nchan)->{redisReaderCreate},
        'Nchan shows a hiredis');
    my $redis = RT::Redis->new;
    for my $first ('Nchan', 'ngx_rt') {
        my $ngx = RT::Nginx->new(redis => $redis, workers => 2,
            $first eq 'Nchan' ? (modules => [$nchan])
                              : (main => "load_module $nchan;"),
            http => <<'END', server => <<'END');
    rt_hub app { redis %%REDIS%%; zone 8m; }
    nchan_redis_url %%REDIS%%;
END
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe app $channel; }
    location = /publish { rt_publish app $arg_channel; }
    location ~ ^/nchan/(\w+)$ {
        nchan_subscriber; nchan_channel_id $1; nchan_use_redis on;
    }
    location ~ ^/nchan-publish/(\w+)$ {
        nchan_publisher; nchan_channel_id $1; nchan_use_redis on;
    }
END
        my $ours = RT::SSE->new($ngx, '/rt/c');
        my $theirs = RT::SSE->new($ngx, '/nchan/c');
        $redis->wait_sub('c');
        # Nchan answers 202 while nobody listens yet
        wait_ok {
            my $status = post($ngx, '/nchan-publish/c', 'by Nchan')->status;
            $status == 201
        } 10, "$first first: Nchan takes a publish";
        is(($theirs->event // {})->{data}, 'by Nchan', 'and delivers');
        for my $n (1 .. 20) {
            post($ngx, '/publish?channel=c', "$n " . 'x' x ($n * 500));
        }
        is(join(' ', map { $_->{data} =~ s/ x+$//r } $ours->wait(20)),
            join(' ', 1 .. 20), 'ngx_rt takes and delivers');
        is(post($ngx, '/nchan-publish/c', 'again')->status, 201,
            'Nchan still does');
        my $event = $theirs->event;
        $event = $theirs->event while $event && $event->{data} eq 'by Nchan';
        is(($event // {})->{data}, 'again', 'both deliver');
        is($ngx->stop, 1, "$first first: all in order");
    }
}

# installed where nginx looks

my $root = dir() . '/root';
my ($status, $output) = run('make', '--no-print-directory', '-C', root(),
    'install', "DESTDIR=$root");
is($status, 0, 'make install') or diag($output);
my ($modules) = `nginx -V 2>&1` =~ /--modules-path=(\S+)/;
is(slurp("$root$modules/ngx_http_rt_module.so"), slurp($so),
    'the module, where this nginx looks for modules');
SKIP: {
    skip 'not a Debian nginx', 3 if !-d '/etc/nginx/modules-enabled';
    my ($glob) = slurp('/etc/nginx/nginx.conf')
        =~ m{^include (/etc/nginx/modules-enabled)/\*\.conf;}m;
    my @links = glob "$root$glob/*.conf";
    is(@links, 1, 'a snippet, where its nginx.conf looks for them');
    my $snippet = slurp($root . readlink $links[0]);
    my ($file) = $snippet =~ /\Aload_module (\S+);\n\z/;
    is($file, "$modules/ngx_http_rt_module.so", 'which loads the module');
    ($ok, $text) = nginx_t(conf => "load_module $root$file;\n"
        . "pid %%DIR%%/pid;\nevents { }\nhttp { rt_hub app { } }\n");
    ok($ok, 'as installed, nginx takes it') or diag($text);
}

# up to date: nothing is done

sub objects ($build) {
    return { map { $_ => (stat)[9] } "$build/ngx_http_rt_module.so",
             glob "$build/module/addon/ngx_rt_module/*.o" };
}

my $before = objects(root() . '/build');
cmp_ok(keys %$before, '>', 30, 'there are objects');
($status, $output) = run('make', '--no-print-directory', '-C', root());
is($status, 0, 'make again');
unlike($output, qr/\S/, 'says nothing');
is_deeply(objects(root() . '/build'), $before, 'and builds nothing');

# the flags that the module was built with let nothing pass

my ($cflags) = slurp(root() . '/build/module/Makefile')
    =~ /^CFLAGS =\s+(.*)$/m;
my $bad = dir() . '/bad.c';
sub passes ($compiler, $code) {
    RT::spew($bad, $code);
    return system("$compiler $cflags -fsyntax-only $bad 2> /dev/null") == 0;
}
for my $compiler (qw(gcc clang)) {
    my $options = $compiler eq 'clang' ? 'clang -Wno-unknown-warning-option'
        : $compiler;
    ok(passes($options, "int f(void) { return 1; }\n"), "$compiler: sound");
    ok(!passes($options, "int f(void) { int a; return 1; }\n"),
        '-Wall is an error');
    ok(!passes($options, "int f(unsigned a) { return a < -1; }\n"),
        '-Wextra too');
}


# clang is done with all files

($status, $output) = finish('clang');
is($status, 0, 'CC=clang compiles every file') or diag($output);
is($output, "build/ngx_http_rt_module.so\n", 'without a word');

my @sources = map { s{.*/}{}r } glob "$copy/ngx_rt_module/*.c";
sub compiled {
    my @names = grep { !/_modules\.c$/ }
        split /\n/, slurp(dir() . '/compiled');
    unlink dir() . '/compiled';
    return [sort @names];
}
is_deeply(compiled(), [sort @sources], 'each of them, once');

# what is due and no more

RT::spew(dir() . '/mode', "trust\n");

sub makes ($name, $expected) {
    ($status, $output) = run(@make);
    is($status, 0, "make after $name") or diag($output);
    is_deeply(compiled(), $expected, '... compiles what it has to');
}

sub touch ($name) {
    utime undef, undef, "$copy/ngx_rt_module/$name" or die "$name: $!\n";
}

makes('nothing', []);
touch('ngx_rt_hub.c');
makes('a change of a file', ['ngx_rt_hub.c']);
touch('ngx_rt_base.h');
makes('a change of a header', [sort @sources]);
RT::spew("$copy/ngx_rt_module/ngx_rt_hub.c", "#error\n");
RT::spew(dir() . '/mode', "check\n");
($status, $output) = run(@make);
isnt($status, 0, 'a file that does not compile is an error');
like($output, qr/ngx_rt_hub\.c:1:2: error:/, 'which is shown');


# liburing is taken where it is, and not missed where it isn't or isn't wanted

sub rings () {
    return slurp("$copy/build/module/ngx_auto_config.h") =~ /NGX_RT_IO_URING/
        ? 1 : 0;
}

SKIP: {
    skip 'no liburing', 1 if !-e '/usr/include/liburing.h';
    is(rings(), 1, 'liburing is found');
    RT::spew(dir() . '/mode', "trust\n");
    ($status, $output) = run(@make, 'RT_IO_URING=NO');
    is($status, 0, 'RT_IO_URING=NO') or diag($output);
    is(rings(), 0, 'leaves it out');
    unlink dir() . '/compiled';
}
RT::spew(dir() . '/mode', "calls\n");
RT::spew("$copy/config", slurp("$copy/config") . "# without\n");
($status, $output) = run(@make);
is($status, 0, 'without liburing') or diag($output);
is($output, "build/ngx_http_rt_module.so\n", 'not a word of it');
is_deeply(compiled(), [sort @sources], 'all is compiled');
is(rings(), 0, 'without io_uring');


# What is missing is told in a line, with Debian's package.  make has a line
# of its own.

sub told ($name, $expected, $status, $output) {
    isnt($status, 0, "$name is an error");
    my @lines = grep { !/^make(?:\[\d+\])?: \*\*\*/ } split /\n/, $output;
    is(scalar @lines, 1, 'told in one line');
    like($lines[0] // '', $expected, 'that says what to do') or diag($output);
}

my @bare = @make[0 .. 3];
RT::spew(dir() . '/mode', "bare\n");
RT::spew("$copy/config", slurp("$copy/config") . "# changed\n");
told('no hiredis', qr/needs hiredis: apt-get install libhiredis-dev$/,
    run(@make));

told('no nginx-dev', qr{no nginx in /nonexistent: apt-get install nginx-dev},
    run(@bare, 'NGINX_SRC=/nonexistent', 'BUILD=' . dir() . '/none'));
make_path(dir() . '/empty');
told('a directory without nginx', qr/no nginx in \S+: apt-get install nginx-/,
    run(@bare, 'NGINX_SRC=' . dir() . '/empty', 'BUILD=' . dir() . '/none'));
told('no compiler', qr/C compiler .* is not found: apt-get install gcc$/,
    run(@bare, 'CC=/nonexistent/cc', 'BUILD=' . dir() . '/no-cc'));

# what nginx's configure itself asks for, in its own words
my ($src) = grep { -d "$_/auto" } root() . '/build/nginx-src';
for (['pcre', 'libpcre2-dev'], ['zlib', 'zlib1g-dev'],
     ['openssl', 'libssl-dev']) {
    my ($library, $package) = @$_;
    my @errors = slurp("$src/auto/lib/$library/conf")
        =~ /^(\$0: error: .*(?:\n(?!END).+)*)/gm;
    cmp_ok(@errors, '>=', 1, "configure may miss $library");
    for my $error (@errors) {
        RT::spew(dir() . '/log', "checking\n\n" . $error =~ s/^\$0/configure/r);
        told($library, qr/apt-get install \Q$package\E$/, 1,
            `$copy/tools/why.sh ${\dir()}/log`);
    }
}
RT::spew(dir() . '/log', join '', map { "line $_\n" } 1 .. 30);
is(`$copy/tools/why.sh ${\dir()}/log`, join('', map { "line $_\n" } 11 .. 30),
    'what is not known is shown as it ended');

# statically

SKIP: {
    skip 'slow: set RT_SLOW=1', 1 if !$ENV{RT_SLOW};
    my $pid = RT::spawn(['make', '--no-print-directory', '-C', root(),
        'static-check'], out => dir() . '/static.out');
    my $ended = RT::poll_until(sub { !RT::running($pid) }, 400);
    $status = $ended ? $? : -1;
    RT::kill_group($pid) if !$ended;
    $output = slurp(dir() . '/static.out');
    is($status, 0, 'make static-check') or diag($output);
    my ($binary) = $output =~ m{^(/\S+/static/nginx)\n\z};
    local $ENV{RT_NGINX} = $binary;
    local $ENV{RT_MODULE} = '';
    my $ngx = RT::Nginx->new(http => 'rt_hub mem { }', server => <<'END');
    location = /publish { rt_publish mem $arg_channel; }
    location ~ ^/rt/(?<channel>\w+)$ { rt_subscribe mem $channel; }
END
    my $sse = RT::SSE->new($ngx, '/rt/a');
    is(post($ngx, '/publish?channel=a', 'x')->status, 202, 'it takes');
    is($sse->event->{data}, 'x', 'and delivers');
    is(get($ngx, '/rt/a')->body, 'x', 'and is polled');
    $ngx->stop;
}

done_testing;

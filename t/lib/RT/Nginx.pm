package RT::Nginx;

# A real nginx with a prefix of its own.
#
#     my $ngx = RT::Nginx->new(
#         http    => TEXT,        # in http { }
#         server  => TEXT,        # in a server { } that listens on %%PORT%%
#         main    => TEXT,        # at the top
#         events  => TEXT,        # in events { }
#         workers => 1,
#         redis   => $redis,      # gives %%REDIS%%, its URL
#         vars    => { NAME => VALUE },
#         modules => [FILE...],   # loaded before ours
#         conf    => TEXT,        # instead of all of the above
#         allow   => [qr/.../],   # lines of the error log that are expected
#         env     => { NAME => VALUE },
#     );
#
# In every text %%NAME%% is replaced: PORT, PORT1 ... PORT9 (free ports, one
# number each), DIR (the prefix), REDIS, ROOT (the checkout), and vars.
#
#     $ngx->port  $ngx->port(1)  $ngx->dir  $ngx->pid
#     $ngx->workers               pids, not counting those that shut down
#     $ngx->old_workers           pids of those that do
#     $ngx->rss($pid)             private memory in KB (RssAnon: touched
#                                 shared memory is not counted)
#     $ngx->reload(%args)         SIGHUP, back when new workers have replaced
#                                 the old; http => TEXT etc. change the config
#     $ngx->signal('USR1')        to the master
#     $ngx->quit  $ngx->kill9     QUIT, does not wait; SIGKILL to all
#     $ngx->kill_worker($sig, $pid)    declares "exited on signal" expected
#     $ngx->log                   the error log; ->log(qr/x/) its lines
#     $ngx->mark                  from here on only, for log and wait_log
#     $ngx->wait_log(qr/x/, $seconds)
#     $ngx->allow(qr/x/)          as allow above
#     $ngx->stop                  QUIT and the assertions
#
# stop, called by done_testing too, is one test: nginx ends on QUIT within
# the deadline (stop(20) sets it), leaves no process, and has logged no
# [alert], no [emerg], no "exited on signal" that was not allowed, and no
# sanitizer report.  It closes the test's own RT::SSE connections first.
#
# Leaks are looked for too: master and workers destroy their pools before they
# exit, so what is unreachable then is a bug.  t/lib/asan.c takes care of the
# little that nginx itself loses.

use v5.36;
use File::Path qw(make_path);
use List::Util qw(first);
use Time::HiRes qw(sleep time);

my $count = 0;

sub new ($class, %args) {
    my $self = $class->_prepare(%args);
    $self->start;
    return $self;
}

sub _prepare ($class, %args) {
    my $n = ++$count;
    my $self = bless {
        dir => RT::dir() . "/nginx$n", name => "nginx$n", args => \%args,
        ports => [], mark => 0, allow => [@{$args{allow} // []}],
    }, $class;
    make_path("$self->{dir}/logs", "$self->{dir}/tmp", "$self->{dir}/html");
    $self->_write_conf;
    return $self;
}

sub binary { return $ENV{RT_NGINX} || 'nginx' }

sub module {
    return $ENV{RT_MODULE} // RT::root() . '/build/ngx_http_rt_module.so';
}

sub _write_conf ($self) {
    my $args = $self->{args};
    my $conf = $args->{conf} // do {
        my @modules = @{$args->{modules} // []};
        push @modules, module() if module() ne '';
        my $load = join '', map { "load_module $_;\n" } @modules;
        my $user = $> == 0 ? "user root;\n" : '';
        my $server = defined $args->{server}
            ? "server { listen 127.0.0.1:%%PORT%%;\n$args->{server}\n}" : '';
        my $temp = join "\n", map { "${_}_temp_path %%DIR%%/tmp/$_;" }
            qw(client_body proxy fastcgi uwsgi scgi);
        <<"END";
$load${user}daemon off;
worker_processes @{[$args->{workers} // 1]};
pid %%DIR%%/nginx.pid;
error_log %%DIR%%/logs/error.log info;
@{[$args->{main} // '']}
events {
    @{[$args->{events} // 'worker_connections 4096;']}
}
http {
    access_log %%DIR%%/logs/access.log;
    root %%DIR%%/html;
    $temp
@{[$args->{http} // '']}
$server
}
END
    };
    $conf =~ s/%%(\w+)%%/$self->_var($1)/ge;
    # at once: a master may be reading it
    RT::spew("$self->{dir}/nginx.conf.new", $conf);
    rename "$self->{dir}/nginx.conf.new", "$self->{dir}/nginx.conf"
        or die "nginx.conf: $!\n";
}

sub _var ($self, $name) {
    my $vars = $self->{args}{vars} // {};
    return $vars->{$name} if exists $vars->{$name};
    return $self->port($1 || 0) if $name =~ /^PORT(\d?)$/;
    return $self->{dir} if $name eq 'DIR';
    return RT::root() if $name eq 'ROOT';
    return $self->{args}{redis}->url
        if $name eq 'REDIS' && $self->{args}{redis};
    die "%%$name%% in an nginx configuration is not known\n";
}

sub _argv ($self, @more) {
    return [binary(), '-p', $self->{dir}, '-c', "$self->{dir}/nginx.conf",
            '-e', "$self->{dir}/logs/error.log", @more];
}

# reports go to DIR/san.PID, which stop looks for
sub _env ($self) {
    my $common = "log_path=$self->{dir}/san:print_stacktrace=1";
    return {
        ASAN_OPTIONS => "$common:detect_leaks=1:detect_odr_violation=0"
            . ':detect_stack_use_after_return=1:abort_on_error=0',
        UBSAN_OPTIONS => "$common:halt_on_error=0",
        %{$self->{args}{env} // {}},
    };
}

sub check ($class, %args) {
    my $self = $class->_prepare(%args);
    my $out = "$self->{dir}/logs/test.out";
    # nginx -t leaves its pools to exit(): no looking for leaks
    my $env = $self->_env;
    $env->{ASAN_OPTIONS} .= ':detect_leaks=0';
    my $pid = RT::spawn($self->_argv('-t'), out => $out, env => $env);
    my $done = RT::poll_until(sub { !RT::running($pid) }, 20);
    my $status = $?;
    if (!$done) {
        RT::kill_group($pid);
        die "nginx -t hangs\n";
    }
    my $text = RT::slurp($out);
    my $report = join '', map { RT::slurp($_) } glob "$self->{dir}/san.*";
    if ($report ne '') {
        local $Test::Builder::Level = $Test::Builder::Level + 2;
        RT::fail('nginx -t: a sanitizer report');
        RT::diag($report);
    }
    return wantarray ? ($status == 0, $text) : $status == 0;
}

sub start ($self) {
    RT::register($self);
    delete $self->{stopped};
    unlink "$self->{dir}/nginx.pid";
    $self->{pid} = RT::spawn($self->_argv, env => $self->_env,
                             out => "$self->{dir}/logs/stderr");
    my $up = RT::poll_until(sub {
        return 'dead' if !RT::running($self->{pid});
        return -s "$self->{dir}/nginx.pid"
            && $self->workers >= $self->_nworkers && $self->_listens;
    }, 15) // 'late';
    return if $up eq '1';
    my $log = RT::slurp("$self->{dir}/logs/stderr") . $self->log;
    $self->abandon;
    die "nginx does not start ($up):\n$log\n";
}

sub _nworkers ($self) {
    my ($n) = RT::slurp("$self->{dir}/nginx.conf")
        =~ /^\s*worker_processes\s+(\d+)/m;
    return $n // 1;
}

sub _listens ($self) {
    return 1 if !defined $self->{ports}[0];
    return IO::Socket::INET->new(PeerAddr => '127.0.0.1',
        PeerPort => $self->{ports}[0], Proto => 'tcp') ? 1 : 0;
}

sub port ($self, $n = 0) { return $self->{ports}[$n] //= RT::free_port() }
sub dir ($self) { return $self->{dir} }
sub pid ($self) { return $self->{pid} }

sub _children ($self, $title) {
    my @pids;
    for my $pid (RT::group($self->{pid})) {
        my $cmdline = RT::slurp("/proc/$pid/cmdline") =~ s/\0+\z//r;
        push @pids, $pid if $cmdline =~ $title;
    }
    @pids = sort { $a <=> $b } @pids;
    return @pids;
}

sub workers ($self) { return $self->_children(qr/^nginx: worker process$/) }

sub old_workers ($self) {
    return $self->_children(qr/^nginx: worker process is shutting down/);
}

sub rss ($self, $pid) {
    my ($kb) = RT::slurp("/proc/$pid/status") =~ /^RssAnon:\s+(\d+)/m;
    return $kb // 0;
}

sub signal ($self, $name) { kill $name => $self->{pid} }

sub reload ($self, %args) {
    $self->{args} = { %{$self->{args}}, %args };
    $self->_write_conf;
    my %old = map { $_ => 1 } $self->workers;
    $self->signal('HUP');
    my $n = $self->_nworkers;
    return RT::wait_for {
        my @now = $self->workers;
        return @now >= $n && !grep { $old{$_} } @now;
    } 10, "$self->{name} reloaded";
}

sub quit ($self) { $self->signal('QUIT') }

sub kill9 ($self) {
    $self->{killed} = 1;
    RT::kill_group($self->{pid});
}

sub kill_worker ($self, $sig, $pid) {
    $self->allow(qr/process $pid exited on signal/);
    kill $sig => $pid;
}

sub allow ($self, @patterns) { push @{$self->{allow}}, @patterns }

sub log ($self, $pattern = undef) {
    my $text = RT::slurp("$self->{dir}/logs/error.log");
    $text = length $text > $self->{mark} ? substr $text, $self->{mark} : '';
    return $text if !defined $pattern;
    return grep { /$pattern/ } split /\n/, $text;
}

sub mark ($self) { $self->{mark} = -s "$self->{dir}/logs/error.log" || 0 }

sub wait_log ($self, $pattern, $seconds = 5) {
    return RT::wait_for { scalar $self->log($pattern) } $seconds,
        "in the log: $pattern";
}

# what must not be in the log
sub _complaints ($self) {
    my @bad;
    local $self->{mark} = 0;
    for my $line ($self->log(qr/\[(?:alert|emerg)\]|exited on signal/)) {
        push @bad, $line if !first { $line =~ $_ } @{$self->{allow}};
    }
    for my $file (glob "$self->{dir}/san.*") {
        push @bad, split /\n/, RT::slurp($file);
    }
    push @bad, grep { /AddressSanitizer|LeakSanitizer|runtime error:/ }
        split /\n/, RT::slurp("$self->{dir}/logs/stderr");
    return @bad;
}

sub stop ($self, $seconds = 15) {
    return if $self->{stopped}++;
    RT::SSE::close_all($self);
    my @bad;
    if (!$self->{killed}) {
        push @bad, 'the master is gone' if !RT::running($self->{pid});
        my $start = time;
        $self->quit;
        RT::poll_until(sub { !RT::running($self->{pid}) }, $seconds)
            // push @bad, "still there $seconds s after QUIT";
        $self->{quit_took} = time - $start;
        my @left = RT::group($self->{pid});
        push @bad, "left: process $_" for @left;
        RT::kill_group($self->{pid});
    }
    push @bad, $self->_complaints;
    local $Test::Builder::Level = $Test::Builder::Level + 2;
    RT::ok(!@bad, "$self->{name} ends cleanly");
    RT::diag($_) for @bad;
    return !@bad;
}

# cleanup without assertions, when the test died
sub abandon ($self) {
    return if $self->{stopped}++;
    RT::kill_group($self->{pid}) if $self->{pid};
    RT::diag("$self->{name}: $_") for $self->_complaints;
}

1;

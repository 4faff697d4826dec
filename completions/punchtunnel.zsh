#compdef punchtunnel

_punchtunnel_completion() {
  eval $(env _TYPER_COMPLETE_ARGS="${words[1,$CURRENT]}" _PUNCHTUNNEL_COMPLETE=complete_zsh punchtunnel)
}

compdef _punchtunnel_completion punchtunnel

